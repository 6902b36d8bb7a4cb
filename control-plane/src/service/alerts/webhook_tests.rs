use std::{str::FromStr as _, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn secret() -> Secret {
    Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())
}

#[test]
fn what_is_sent_is_signed_as_the_specification_has_it() {
    // The example of the Standard Webhooks specification's reference libraries.
    let body = r#"{"test": 2432232314}"#;
    let signed = signature(&key(&secret()).unwrap(), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!!"] {
        let why = key(&Secret::new(wrong.to_owned())).unwrap_err().to_string();
        assert!(why.starts_with("webhook.secret: ") && !why.contains("c2hv"), "{why}");
    }
}

#[test]
fn no_webhook_is_where_secrets_of_machines_are() {
    for bad in [
        "169.254.169.254",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "168.63.129.16",
        "::169.254.169.254",
    ] {
        assert!(!allowed(IpAddr::from_str(bad).unwrap(), true), "{bad}");
    }
    for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
        let here = IpAddr::from_str(here).unwrap();
        assert!(allowed(here, true) && !allowed(here, false), "{here}");
    }
    for good in ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:2800:220:1::1", "fd12::1"] {
        assert!(allowed(IpAddr::from_str(good).unwrap(), false), "{good}");
    }
}

#[test]
fn addresses_that_no_webhook_has_are_refused_when_they_are_given() {
    for good in ["https://hooks.example/x", "https://10.0.0.1/x", "https://[2606:2800:220:1::1]/"] {
        check(good, false).unwrap();
    }
    for here in ["http://127.0.0.1:9/", "http://localhost:9/", "http://[::1]:9/", "https://localhost/"] {
        check(here, true).unwrap();
        assert!(check(here, false).unwrap_err().to_string().contains("alerts.allow_loopback"), "{here}");
    }
    for bad in [
        "http://hooks.example/",
        "http://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[fe80::1]/",
        "https://0.0.0.0/",
    ] {
        assert!(check(bad, true).unwrap_err().to_string().starts_with("webhook.url: "), "{bad}");
    }
}

/// Answers one request so, and returns what it was.
async fn one(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut asked, mut part) = (String::new(), [0; 4096]);
        while !asked.ends_with("{}") {
            let read = stream.read(&mut part).await.unwrap();
            asked.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    });
    (url, served)
}

#[tokio::test]
async fn what_is_answered_says_whether_it_was_heard() {
    let sender = Sender::new(Duration::from_secs(5), true).unwrap();
    let (url, served) = one("HTTP/1.1 204 No Content\r\n\r\n").await;
    sender.send((&url, &secret()), ("msg-1", "{}")).await.unwrap();
    let asked = served.await.unwrap();
    let line = |name: &str| {
        asked.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default().to_owned()
    };
    let timestamp: i64 = line("webhook-timestamp").parse().unwrap();
    assert!((clock::unix_ms() / 1_000 - timestamp).abs() < 5);
    assert_eq!(line("webhook-signature"), signature(&key(&secret()).unwrap(), "msg-1", timestamp, "{}"));
    assert!(asked.starts_with("POST /hook HTTP/1.1") && line("content-type") == "application/json", "{asked}");
    for (answer, said, is_final) in [
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "500", false),
        ("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", "redirects", false),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", "410", true),
        ("nonsense\r\n\r\n", "", false),
    ] {
        let (url, served) = one(answer).await;
        let unheard = sender.send((&url, &secret()), ("msg-2", "{}")).await.unwrap_err();
        assert!(unheard.why.contains(said) && unheard.is_final == is_final, "{unheard:?}");
        served.await.unwrap();
    }
}

#[tokio::test]
async fn who_does_not_answer_and_where_none_may_be_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hasty = Sender::new(Duration::from_millis(200), true).unwrap();
    let unheard = hasty.send((&url, &secret()), ("m", "{}")).await.unwrap_err();
    assert!(unheard.why.contains("200 ms"), "{unheard:?}");
    // The settings are others than when the rule was made.
    let strict = Sender::new(Duration::from_secs(2), false).unwrap();
    let unheard = strict.send((&url, &secret()), ("m", "{}")).await.unwrap_err();
    assert!(unheard.why.contains("alerts.allow_loopback"), "{unheard:?}");
    // A name is looked up each time, and this one is of this machine.
    let mut guard = Guard { allow_loopback: false };
    let refused = guard.call(Name::from_str("localhost").unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("no webhook may have"), "{refused}");
    assert!(Guard { allow_loopback: true }.call(Name::from_str("localhost").unwrap()).await.unwrap().next().is_some());
}
