//! Which class an event is of, and which of the class's activities.

use serde_json::{Value, json};

use crate::view::EventView;

/// The classes that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Base,
    AccountChange,
    Authentication,
    EntityManagement,
    UserAccess,
    GroupManagement,
    Http,
    Application,
    ApiActivity,
    Datastore,
    Finding,
}

impl Kind {
    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Base => 0,
            Self::Finding => 2004,
            Self::AccountChange => 3001,
            Self::Authentication => 3002,
            Self::EntityManagement => 3004,
            Self::UserAccess => 3005,
            Self::GroupManagement => 3006,
            Self::Http => 4002,
            Self::Application => 6002,
            Self::ApiActivity => 6003,
            Self::Datastore => 6005,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "Base Event",
            Self::Finding => "Detection Finding",
            Self::AccountChange => "Account Change",
            Self::Authentication => "Authentication",
            Self::EntityManagement => "Entity Management",
            Self::UserAccess => "User Access Management",
            Self::GroupManagement => "Group Management",
            Self::Http => "HTTP Activity",
            Self::Application => "Application Lifecycle",
            Self::ApiActivity => "API Activity",
            Self::Datastore => "Datastore Activity",
        }
    }

    pub(super) fn category(self) -> u32 {
        self.uid() / 1000
    }

    pub(super) fn category_name(self) -> &'static str {
        match self.category() {
            2 => "Findings",
            3 => "Identity & Access Management",
            4 => "Network Activity",
            6 => "Application Activity",
            _ => "Uncategorized",
        }
    }

    /// Has the class `src_endpoint`?
    pub(super) fn has_client(self) -> bool {
        matches!(self.category(), 3 | 4) || matches!(self, Self::ApiActivity | Self::Datastore)
    }

    /// Has the class `http_request`?
    pub(super) fn has_request(self) -> bool {
        self.has_client()
    }

    /// Must `actor` and `src_endpoint` be there?
    pub(super) fn needs_actor(self) -> bool {
        matches!(self, Self::ApiActivity | Self::Datastore)
    }
}

/// A class and what was done.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) kind: Kind,
    pub(super) activity_id: u32,
    pub(super) activity: &'static str,
}

impl Class {
    /// The method of an HTTP activity.
    pub(super) fn method(&self) -> Option<&'static str> {
        Some(match self.activity_id {
            2 => "DELETE",
            3 => "GET",
            6 => "POST",
            7 => "PUT",
            _ => return None,
        })
    }
}

const GROUPS: &[&str] = &["group", "team", "department", "organization_unit"];
const RUNNING: &[(&str, u32, &str)] = &[
    ("install", 1, "Install"),
    ("remove", 2, "Remove"),
    ("uninstall", 2, "Remove"),
    ("purge", 2, "Remove"),
    ("start", 3, "Start"),
    ("stop", 4, "Stop"),
    ("shutdown", 4, "Stop"),
    ("crash", 4, "Stop"),
    ("restart", 5, "Restart"),
    ("reload", 5, "Restart"),
    ("enable", 6, "Enable"),
    ("disable", 7, "Disable"),
    ("update", 8, "Update"),
    ("upgrade", 8, "Update"),
];

/// The class that says most of an event.
pub(super) fn choose(event: &EventView<'_>) -> Class {
    let action = event.action.as_deref().unwrap_or_default();
    let object = action.split('.').next().unwrap_or_default();
    let verb = action.rsplit('.').next().unwrap_or_default();
    let op = event.op.as_deref().unwrap_or_default();
    let target = event.targets.first().and_then(|target| target.kind.as_deref());
    let about_group = GROUPS.contains(&object) || target.is_some_and(|kind| GROUPS.contains(&kind));
    match event.category.as_deref().unwrap_or_default() {
        "authentication" | "session" => authentication(action, verb, op, about_group),
        "account" if about_group => group(verb, op),
        "account" => account(action, verb, op),
        "permission" if about_group => group(verb, op),
        "permission" => access(object, verb, op),
        "security" => Class { kind: Kind::Finding, activity_id: 1, activity: "Create" },
        "access" if object == "http" => http(op),
        "api" => api(op),
        "data" if object == "database" || target == Some("database") => datastore(verb, op),
        "system" => running(verb),
        "unknown" | "custody" | "" => base(),
        _ => entity(op),
    }
}

fn base() -> Class {
    Class { kind: Kind::Base, activity_id: 99, activity: "Other" }
}

fn authentication(action: &str, verb: &str, op: &str, about_group: bool) -> Class {
    if action.starts_with("password") || action.contains(".mfa") || action.starts_with("mfa.") {
        return account(action, verb, op);
    }
    if about_group {
        return group(verb, op);
    }
    let (activity_id, activity) = match (op, verb) {
        ("login", _) | (_, "start" | "open" | "create") => (1, "Logon"),
        ("logout", _) | (_, "end" | "close" | "expire" | "terminate") => (2, "Logoff"),
        (_, "switch" | "become" | "sudo" | "su") => (7, "Account Switch"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::Authentication, activity_id, activity }
}

fn account(action: &str, verb: &str, op: &str) -> Class {
    let mfa = action.contains("mfa") || action.contains("totp") || action.contains("2fa");
    let (activity_id, activity) = match (action.contains("password"), verb, op) {
        (true, "reset", _) => (4, "Password Reset"),
        (true, _, _) => (3, "Password Change"),
        (_, _, "enable") if mfa => (10, "MFA Factor(s) Enable"),
        (_, _, "disable") if mfa => (11, "MFA Factor(s) Disable"),
        (_, _, "create") => (1, "Create"),
        (_, _, "enable" | "restore") => (2, "Enable"),
        (_, _, "disable") => (5, "Disable"),
        (_, _, "delete") => (6, "Delete"),
        (_, _, "lock") => (9, "Lock"),
        (_, _, "unlock") => (12, "Unlock"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::AccountChange, activity_id, activity }
}

fn access(object: &str, _verb: &str, op: &str) -> Class {
    let role = object == "role";
    let (activity_id, activity) = match (op, role) {
        ("grant" | "assign" | "create", true) => (3, "Assign Role"),
        ("revoke" | "delete", true) => (4, "Remove Role"),
        ("grant" | "assign" | "create", false) => (1, "Assign Privileges"),
        ("revoke" | "delete", false) => (2, "Revoke Privileges"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::UserAccess, activity_id, activity }
}

fn group(verb: &str, op: &str) -> Class {
    let (activity_id, activity) = match (verb, op) {
        ("add_member" | "add" | "join" | "add_user", _) | (_, "assign") => (3, "Add User"),
        ("remove_member" | "leave" | "remove_user", _) => (4, "Remove User"),
        (_, "grant") => (1, "Assign Privileges"),
        (_, "revoke") => (2, "Revoke Privileges"),
        (_, "create") => (6, "Create"),
        (_, "delete") => (5, "Delete"),
        (_, "update") => (9, "Update"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::GroupManagement, activity_id, activity }
}

fn entity(op: &str) -> Class {
    let (activity_id, activity) = match op {
        "create" | "import" => (1, "Create"),
        "read" | "download" | "export" => (2, "Read"),
        "update" => (3, "Update"),
        "delete" => (4, "Delete"),
        "move" => (5, "Move"),
        "enable" => (8, "Enable"),
        "disable" => (9, "Disable"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::EntityManagement, activity_id, activity }
}

fn http(op: &str) -> Class {
    let (activity_id, activity) = match op {
        "read" => (3, "Get"),
        "create" => (6, "Post"),
        "update" => (7, "Put"),
        "delete" => (2, "Delete"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::Http, activity_id, activity }
}

fn api(op: &str) -> Class {
    let (activity_id, activity) = match op {
        "create" => (1, "Create"),
        "read" => (2, "Read"),
        "update" => (3, "Update"),
        "delete" => (4, "Delete"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::ApiActivity, activity_id, activity }
}

fn datastore(verb: &str, op: &str) -> Class {
    let (activity_id, activity) = match (verb, op) {
        ("connect", _) => (3, "Connect"),
        (_, "read") => (1, "Read"),
        (_, "update") => (2, "Update"),
        (_, "create" | "import") => (6, "Create"),
        (_, "delete") => (7, "Delete"),
        ("statement" | "query", _) => (4, "Query"),
        _ => (99, "Other"),
    };
    Class { kind: Kind::Datastore, activity_id, activity }
}

fn running(verb: &str) -> Class {
    match RUNNING.iter().find(|(known, _, _)| *known == verb) {
        Some((_, activity_id, activity)) => {
            Class { kind: Kind::Application, activity_id: *activity_id, activity }
        }
        None => base(),
    }
}

/// A way of logging in as a factor of the schema.
pub(super) fn factor(method: &str) -> Value {
    let (id, name) = match method {
        "password" => (11, "Password"),
        "totp" => (7, "OTP"),
        "email_otp" => (8, "Email"),
        "webauthn" => (10, "WebAuthn"),
        _ => (99, "Other"),
    };
    json!({ "factor_type_id": id, "factor_type": if id == 99 { method } else { name } })
}
