use super::*;

async fn providers() -> (Providers, Caller, tempfile::TempDir) {
    let (store, dir) = scoped::for_tests().await;
    (Providers::new(store, Secrets::for_tests()), Caller::for_tests(), dir)
}

fn new(name: &str) -> NewProvider {
    NewProvider {
        workspace: "w".to_owned(),
        name: name.to_owned(),
        kind: ProviderKind::OpenAi,
        base_url: None,
        default_model: String::new(),
        models: Vec::new(),
        headers: serde_json::from_str(r#"{"X-Org":{"secret":"org-hidden"}}"#).unwrap(),
        api_key: Some(Secret::new("sk-0123456789-hidden-0123456789".to_owned())),
    }
}

#[tokio::test]
async fn a_key_is_kept_sealed_and_opened_for_sandboxes() {
    let (providers, caller, _dir) = providers().await;
    let row = providers.create(&caller, new("main")).await.unwrap();
    assert!(!row.document.contains("hidden"), "{}", row.document);
    let opened = providers.opened("w").await.unwrap();
    assert_eq!(opened[0].api_key.as_ref().unwrap().expose(), "sk-0123456789-hidden-0123456789");
    assert_eq!((opened[0].headers["X-Org"].expose(), opened[0].is_default), ("org-hidden", false));
    assert_eq!(opened[0].base_url, "https://api.openai.com/v1");
    assert!(!format!("{opened:?}").contains("hidden"));
    // What is not named stays as it is, sealed; what is null goes.
    let renamed = Changes { name: Some("other".to_owned()), ..Changes::default() };
    providers.change(&caller, (&row.id, None), renamed).await.unwrap();
    assert!(providers.opened("w").await.unwrap()[0].api_key.is_some());
    let without = Changes { api_key: Patch::Clear, headers: Patch::Clear, ..Changes::default() };
    providers.change(&caller, (&row.id, None), without).await.unwrap();
    let opened = providers.opened("w").await.unwrap();
    assert!(opened[0].api_key.is_none() && opened[0].headers.is_empty());
    // Under another key than it was sealed with nothing opens, and where there is none nothing is taken.
    let row = providers.create(&caller, new("third")).await.unwrap();
    let none = Providers::new(providers.rows.store().clone(), Secrets::none());
    assert_eq!(none.opened("w").await.unwrap_err().code(), "SECRETS_NOT_CONFIGURED");
    assert_eq!(none.create(&caller, new("fourth")).await.unwrap_err().code(), "SECRETS_NOT_CONFIGURED");
    let moved = Resource { id: "llm-moved".to_owned(), name: "moved".to_owned(), ..row };
    providers.rows.store().insert(&moved).await.unwrap();
    assert_eq!(providers.opened("w").await.unwrap_err().code(), "SECRET_UNREADABLE");
}

#[tokio::test]
async fn the_default_of_a_workspace_is_there_and_stays() {
    let (providers, caller, _dir) = providers().await;
    let store = providers.rows.store().clone();
    assert_eq!(check_default(&store, "w", "main").await.unwrap_err().code(), "UNKNOWN_LLM_PROVIDER");
    let row = providers.create(&caller, new("main")).await.unwrap();
    check_default(&store, "w", "main").await.unwrap();
    let (workspace, _) = providers.default_of("w").await.unwrap();
    let workspace = workspace.unwrap();
    let mut document = workspace::Document::of(&workspace).unwrap();
    document.settings.default_llm_provider = Some("main".to_owned());
    store.update(&Resource { document: document.encode().unwrap(), ..workspace }).await.unwrap();
    assert!(providers.opened("w").await.unwrap()[0].is_default);
    let renamed = Changes { name: Some("other".to_owned()), ..Changes::default() };
    let why = providers.change(&caller, (&row.id, None), renamed).await.unwrap_err();
    assert_eq!(why.code(), "LLM_PROVIDER_IS_DEFAULT");
    let why = providers.delete(&caller, (&row.id, None), false).await.unwrap_err();
    assert_eq!(why.code(), "LLM_PROVIDER_IS_DEFAULT");
    providers.delete(&caller, (&row.id, None), true).await.unwrap();
    assert_eq!(providers.default_of("w").await.unwrap().1, None);
    assert_eq!(providers.get(&caller, &row.id).await.unwrap_err().code(), "UNKNOWN_LLM_PROVIDER");
}

#[tokio::test]
async fn what_cannot_be_is_named_and_leaves_nothing() {
    let (providers, caller, _dir) = providers().await;
    let custom = NewProvider { kind: ProviderKind::Custom, ..new("a") };
    let many = NewProvider { models: vec!["m".to_owned(); MAX_MODELS + 1], ..new("a") };
    let unlisted = NewProvider { models: vec!["m".to_owned()], default_model: "n".to_owned(), ..new("a") };
    let spaced = NewProvider { base_url: Some("https://a b".to_owned()), ..new("a") };
    let broken = NewProvider { api_key: Some(Secret::new("hidden\nline".to_owned())), ..new("a") };
    for (wrong, field) in [
        (custom, "base_url: "),
        (many, "models: "),
        (unlisted, "default_model: "),
        (spaced, "base_url: "),
        (broken, "api_key: "),
        (new(" a"), "name: "),
    ] {
        let why = providers.create(&caller, wrong).await.unwrap_err().to_string();
        assert!(why.starts_with(field) && !why.contains("hidden"), "{why}");
    }
    let elsewhere = NewProvider { workspace: "nowhere".to_owned(), ..new("a") };
    assert_eq!(providers.create(&caller, elsewhere).await.unwrap_err().code(), "UNKNOWN_WORKSPACE");
    assert!(providers.opened("w").await.unwrap().is_empty());
    for number in 0..KIND.most {
        providers.create(&caller, new(&format!("n{number}"))).await.unwrap();
    }
    assert_eq!(providers.create(&caller, new("more")).await.unwrap_err().code(), "TOO_MANY_RESOURCES");
}
