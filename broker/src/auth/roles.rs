//! Which roles may call which RPC: one table, and the only place that says so. `tandem roles` prints it.

use std::{fmt, str::FromStr};

/// What somebody is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything.
    Admin,
    /// Runs the nodes: sees how they are and changes the cluster; reads no message.
    Operator,
    /// Builds agents: everything within a workspace but the workspace itself.
    Developer,
    /// Decides on what waits for approval.
    Approver,
    /// Reads everything and changes nothing.
    Auditor,
    /// A running sandbox: speaks as itself.
    Sandbox,
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Operator, Self::Developer, Self::Approver, Self::Auditor, Self::Sandbox];

    /// As tokens and settings write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Developer => "developer",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Sandbox => "sandbox",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A role that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; there are admin, operator, developer, approver, auditor and sandbox")]
pub struct UnknownRole(String);

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// Every role.
    pub const ALL: Self = Self((1 << Role::ALL.len()) - 1);

    /// One role.
    pub const fn of(role: Role) -> Self {
        Self(1 << role as u8)
    }

    /// These and one more.
    #[must_use]
    pub const fn and(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    /// Whether both sets have a role in common.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As they are stored.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Stored roles; those that this version does not know mean nothing.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.meets(Self::of(*role)))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::default(), Self::and)
    }
}

/// One RPC and who may call it.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Whoever has one of these.
    pub roles: Roles,
    /// Whether the answer is a stream, which ends when what its caller has proven does.
    pub streams: bool,
}

impl Rule {
    /// Whether only nodes say it to each other: a client would say what others have done. Where everyone may do everything, nobody
    /// can be told apart.
    pub fn is_for_nodes(&self) -> bool {
        self.path.ends_with("/ReportAudit")
    }

    /// Whether it is about the nodes, and so not for who is bound to a workspace.
    pub fn concerns_all(&self) -> bool {
        self.path.starts_with("/aintandem.cluster.")
    }
}

const ADMIN: Roles = Roles::of(Role::Admin);
/// Runs the cluster.
const OPERATE: Roles = ADMIN.and(Role::Operator);
/// Sees how the cluster is.
const WATCH: Roles = OPERATE.and(Role::Auditor);
/// Takes part in the conversation.
const SPEAK: Roles = ADMIN.and(Role::Developer).and(Role::Sandbox);
/// Arranges a workspace.
const ARRANGE: Roles = ADMIN.and(Role::Developer);
/// Reads what others have said.
const READ: Roles = ARRANGE.and(Role::Auditor);
/// Sees what happens, without what was said.
const NOTICE: Roles = READ.and(Role::Operator).and(Role::Approver);
/// Decides on what waits for approval.
const APPROVE: Roles = ADMIN.and(Role::Approver);
/// Looks up who and what there is.
const LOOK_UP: Roles = Roles::ALL;

const fn rule(path: &'static str, roles: Roles) -> Rule {
    Rule { path, roles, streams: false }
}

const fn stream(path: &'static str, roles: Roles) -> Rule {
    Rule { path, roles, streams: true }
}

/// Every RPC of the contract, by path.
pub const TABLE: &[Rule] = &[
    rule("/aintandem.approval.v1.ApprovalService/ApproveMessage", APPROVE),
    rule("/aintandem.approval.v1.ApprovalService/DenyMessage", APPROVE),
    rule("/aintandem.approval.v1.ApprovalService/GetApproval", READ.and(Role::Approver).and(Role::Sandbox)),
    rule("/aintandem.approval.v1.ApprovalService/ListApprovals", READ.and(Role::Approver)),
    rule("/aintandem.audit.v1.AuditService/GetAuditHead", ADMIN.and(Role::Auditor)),
    rule("/aintandem.audit.v1.AuditService/ListAuditRecords", ADMIN.and(Role::Auditor)),
    rule("/aintandem.audit.v1.AuditService/ReportAudit", ADMIN),
    rule("/aintandem.cluster.v1.ClusterService/AddNode", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/DrainNode", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/GetCluster", WATCH),
    rule("/aintandem.cluster.v1.ClusterService/RebalanceLeaders", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/RemoveNode", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/ReplaceNode", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/TransferLeader", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/UndrainNode", OPERATE),
    rule("/aintandem.cluster.v1.ClusterService/VerifyCluster", WATCH),
    rule("/aintandem.key.v1.KeyService/CreateKey", ADMIN),
    rule("/aintandem.key.v1.KeyService/ListKeys", ADMIN.and(Role::Auditor)),
    rule("/aintandem.key.v1.KeyService/ReportKeyUse", ADMIN),
    rule("/aintandem.key.v1.KeyService/RevokeKey", ADMIN),
    rule("/aintandem.messaging.v1.DeadLetterService/GetDeadLetter", READ),
    rule("/aintandem.messaging.v1.DeadLetterService/ListDeadLetters", READ),
    stream("/aintandem.messaging.v1.DeadLetterService/PurgeDeadLetters", ARRANGE),
    stream("/aintandem.messaging.v1.DeadLetterService/RedriveDeadLetters", ARRANGE),
    rule("/aintandem.messaging.v1.EventService/ReportEvents", ADMIN),
    stream("/aintandem.messaging.v1.EventService/StreamEvents", NOTICE),
    rule("/aintandem.messaging.v1.HistoryService/GetMessage", READ),
    rule("/aintandem.messaging.v1.HistoryService/ListMessages", READ),
    rule("/aintandem.messaging.v1.HistoryService/ReplayMessages", ARRANGE),
    stream("/aintandem.messaging.v1.HistoryService/StreamMessages", READ),
    rule("/aintandem.messaging.v1.PublishService/Publish", SPEAK),
    stream("/aintandem.messaging.v1.PublishService/PublishStream", SPEAK),
    rule("/aintandem.messaging.v1.RequestService/Request", SPEAK),
    stream("/aintandem.messaging.v1.SubscribeService/Subscribe", SPEAK),
    rule("/aintandem.messaging.v1.TopicService/CreateTopic", ARRANGE),
    rule("/aintandem.messaging.v1.TopicService/DeleteTopic", ARRANGE),
    rule("/aintandem.messaging.v1.TopicService/FollowTopics", SPEAK),
    rule("/aintandem.messaging.v1.TopicService/GetTopic", LOOK_UP),
    rule("/aintandem.messaging.v1.TopicService/ListFollows", LOOK_UP),
    rule("/aintandem.messaging.v1.TopicService/ListTopics", LOOK_UP),
    rule("/aintandem.messaging.v1.TopicService/UnfollowTopics", SPEAK),
    rule("/aintandem.policy.v1.PolicyService/GetPolicy", READ.and(Role::Approver)),
    rule("/aintandem.policy.v1.PolicyService/RemovePolicy", ADMIN),
    rule("/aintandem.policy.v1.PolicyService/SetPolicy", ADMIN),
    rule("/aintandem.registry.v1.RegistryService/DiscoverAgents", LOOK_UP),
    rule("/aintandem.registry.v1.RegistryService/GetSandbox", LOOK_UP),
    rule("/aintandem.registry.v1.RegistryService/Heartbeat", SPEAK),
    rule("/aintandem.registry.v1.RegistryService/ListSandboxes", LOOK_UP),
    rule("/aintandem.registry.v1.RegistryService/RegisterSandbox", SPEAK),
    rule("/aintandem.registry.v1.RegistryService/UnregisterSandbox", SPEAK),
    rule("/aintandem.server.v1.ServerService/GetCaller", LOOK_UP),
    rule("/aintandem.server.v1.ServerService/GetServerInfo", LOOK_UP),
    rule("/aintandem.token.v1.TokenService/CreateToken", ADMIN),
    rule("/aintandem.token.v1.TokenService/ListTokens", ADMIN.and(Role::Auditor)),
    rule("/aintandem.token.v1.TokenService/RenewToken", LOOK_UP),
    rule("/aintandem.token.v1.TokenService/RevokeToken", ADMIN),
    rule("/aintandem.workspace.v1.WorkspaceService/CreateWorkspace", ADMIN),
    rule("/aintandem.workspace.v1.WorkspaceService/DeleteWorkspace", ADMIN),
    rule("/aintandem.workspace.v1.WorkspaceService/GetQuotas", LOOK_UP),
    rule("/aintandem.workspace.v1.WorkspaceService/GetWorkspace", LOOK_UP),
    rule("/aintandem.workspace.v1.WorkspaceService/ListWorkspaces", LOOK_UP),
    rule("/aintandem.workspace.v1.WorkspaceService/SetQuotas", ADMIN),
    rule("/aintandem.workspace.v1.WorkspaceService/UpdateWorkspace", ADMIN),
];

/// The row of a path.
pub fn find(path: &str) -> Option<&'static Rule> {
    TABLE.binary_search_by(|rule| rule.path.cmp(path)).ok().map(|place| &TABLE[place])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;

    use super::*;

    /// Every method of the descriptor set, and whether it answers with a stream.
    fn methods() -> BTreeMap<String, bool> {
        let set = prost_types::FileDescriptorSet::decode(tandem_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut methods = BTreeMap::new();
        for file in set.file.iter().filter(|file| file.package().starts_with("aintandem.")) {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    methods.insert(path, method.server_streaming());
                }
            }
        }
        methods
    }

    #[test]
    fn every_rpc_has_one_row_and_every_row_an_rpc() {
        let table: Vec<_> = TABLE.iter().map(|rule| (rule.path.to_owned(), rule.streams)).collect();
        assert_eq!(table, methods().into_iter().collect::<Vec<_>>(), "sorted by path, so that it can be searched");
        for rule in TABLE {
            assert_eq!(find(rule.path).unwrap().path, rule.path);
            assert!(rule.roles.meets(ADMIN), "{}", rule.path);
        }
        assert!(find("/aintandem.server.v1.ServerService/Nothing").is_none());
    }

    #[test]
    fn roles_come_back_from_their_names() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("auditor"));
        let two: Roles = [Role::Admin, Role::Sandbox].into_iter().collect();
        assert_eq!(two.iter().collect::<Vec<_>>(), [Role::Admin, Role::Sandbox]);
        assert!(two.meets(ADMIN) && !two.meets(Roles::of(Role::Auditor)) && !Roles::default().meets(Roles::ALL));
    }
}
