//! `custody-collector user` and `role`: written into the data base, also while the collector runs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use custody_config::CollectorConfig;
use custody_config::shell::{Exit, Failure, SystemClock};

use super::{existing, say};
use crate::access::{
    Access, AccessError, By, NewUser, Permissions, Role, Scope, UserChange, password,
    random_secret, shown, user_name,
};

/// What an account may see; without any of these everything.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ScopeArgs {
    /// Only events of this tenant; `prefix*` for all that begin so; may be given several times
    #[arg(long, value_name = "TENANT")]
    tenant: Vec<String>,
    /// Only events of this host, in the same way
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only events of this category, in the same way
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
}

impl ScopeArgs {
    pub(super) fn scope(&self) -> Scope {
        Scope {
            tenants: self.tenant.clone(),
            hosts: self.host.clone(),
            categories: self.category.clone(),
        }
    }
}

/// Where a password comes from: never from an argument, which everybody on the machine can read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PasswordArgs {
    /// A file that holds the password in its first line; without it, standard input does
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// No password at all: the user logs in by the identity provider alone
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
}

/// A password and a line end.
const MAX_PASSWORD_FILE_BYTES: u64 = 4_096;

impl PasswordArgs {
    /// The password as it is kept.
    fn kept(&self, name: &str) -> anyhow::Result<String> {
        if self.no_password {
            return Ok(password::NONE.to_owned());
        }
        let typed = match &self.password_file {
            Some(path) => first_line(&mut open(path)?, &path.display().to_string())?,
            None => first_line(&mut std::io::stdin().lock(), "standard input")?,
        };
        let mut salt = [0; 16];
        salt.copy_from_slice(&random_secret()?[..16]);
        Ok(password::hashed(name, &typed, &salt).map_err(AccessError::Password)?)
    }
}

fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(path).map_err(|error| {
        Failure::because(Exit::NoInput, format!("cannot read {}", path.display()), error).into()
    })
}

fn first_line(from: &mut impl Read, what: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_PASSWORD_FILE_BYTES)
        .read_to_string(&mut text)
        .with_context(|| format!("reading the password from {what}"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// What to do with users.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum UserCommand {
    /// Make a user; the password comes from a file or standard input
    Create {
        /// The name: letters, digits and ._@+-
        name: String,
        /// viewer, analyst, auditor, admin, or a role of your own
        #[arg(long)]
        role: String,
        #[command(flatten)]
        scope: ScopeArgs,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List all users
    List,
    /// Let nobody log in as this user; ends all sessions, and tokens of this user are refused
    Disable {
        /// The name
        name: String,
    },
    /// Let the user log in again
    Enable {
        /// The name
        name: String,
    },
    /// Set another password, from a file or standard input; ends all sessions
    Password {
        /// The name
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Remove a user and revoke the user's tokens
    Delete {
        /// The name
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// There is no data directory, the database cannot be used, or it is refused.
pub fn user(config: &CollectorConfig, command: &UserCommand) -> anyhow::Result<Exit> {
    let access = Access::open(existing(config)?, Arc::new(SystemClock::new()))?;
    answered(do_user(&access, command))
}

fn do_user(access: &Access, command: &UserCommand) -> anyhow::Result<()> {
    let change = |name: &str, change: UserChange| -> anyhow::Result<()> {
        Ok(access.change_user(By::Machine, name, change).map(drop)?)
    };
    match command {
        UserCommand::Create { name, role, scope, password } => {
            let name = user_name(name)?;
            let password = password.kept(&name)?;
            let new = NewUser { name, role: role.clone(), scope: scope.scope(), password };
            let made = access.create_user(By::Machine, new)?;
            say(&format!("user {} may log in as {}\n", made.name, made.role))
        }
        UserCommand::List => list_users(access),
        UserCommand::Disable { name } => {
            change(name, UserChange { disabled: Some(true), ..UserChange::default() })
        }
        UserCommand::Enable { name } => {
            change(name, UserChange { disabled: Some(false), ..UserChange::default() })
        }
        UserCommand::Password { name, password } => {
            let kept = password.kept(name)?;
            change(name, UserChange { password: Some(kept), ..UserChange::default() })
        }
        UserCommand::Delete { name } => Ok(access.delete_user(By::Machine, name)?),
    }
}

fn list_users(access: &Access) -> anyhow::Result<()> {
    let mut text = String::from(
        "ROLE       CREATED                      LAST LOGIN                   DISABLED                     NAME\n",
    );
    for user in access.users(By::Machine)? {
        text.push_str(&format!(
            "{:<10} {:<28} {:<28} {:<28} {}{}\n",
            user.role,
            shown(Some(user.created)),
            shown(user.last_login),
            shown(user.disabled),
            user.name,
            scoped(&user.scope),
        ));
    }
    say(&text)
}

/// A scope behind a name in a list.
pub(super) fn scoped(scope: &Scope) -> String {
    let mut text = String::new();
    for (what, list) in
        [("tenant", &scope.tenants), ("host", &scope.hosts), ("category", &scope.categories)]
    {
        if !list.is_empty() {
            text.push_str(&format!("  {what}:{}", list.join(",")));
        }
    }
    text
}

/// What to do with roles.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum RoleCommand {
    /// Make a role of permissions
    Create {
        /// The name: letters, digits and ._@+-
        name: String,
        /// search, view_raw, view_sensitive, export, hold, erase, configure, administer; with
        /// commas between
        #[arg(long, value_delimiter = ',')]
        permissions: Vec<String>,
    },
    /// List all roles with what they allow
    List,
    /// Remove a role that nobody has
    Delete {
        /// Its name
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// There is no data directory, the database cannot be used, or it is refused.
pub fn role(config: &CollectorConfig, command: &RoleCommand) -> anyhow::Result<Exit> {
    let access = Access::open(existing(config)?, Arc::new(SystemClock::new()))?;
    answered(do_role(&access, command))
}

fn do_role(access: &Access, command: &RoleCommand) -> anyhow::Result<()> {
    match command {
        RoleCommand::Create { name, permissions } => {
            let names = permissions.iter().map(String::as_str);
            let permissions = Permissions::from_names(names).map_err(|bad| {
                let all = Permissions::ALL.names().join(", ");
                Failure::new(Exit::Usage, format!("no permission {bad:?}; there are {all}"))
            })?;
            Ok(access.create_role(By::Machine, name, permissions).map(drop)?)
        }
        RoleCommand::List => {
            let mut text = String::from("ROLE         PERMISSIONS\n");
            let built_in = Role::ALL.map(|role| (role.name().to_owned(), role.permissions()));
            let made = access.roles()?.into_iter().map(|role| (role.name, role.permissions));
            for (name, permissions) in built_in.into_iter().chain(made) {
                text.push_str(&format!("{name:<12} {}\n", permissions.names().join(", ")));
            }
            say(&text)
        }
        RoleCommand::Delete { name } => Ok(access.delete_role(By::Machine, name)?),
    }
}

/// A refusal is the answer "no", not a failure of the program.
pub(super) fn answered(done: anyhow::Result<()>) -> anyhow::Result<Exit> {
    let Err(error) = done else { return Ok(Exit::Good) };
    let exit = match error.downcast_ref::<AccessError>() {
        Some(
            AccessError::Database { .. } | AccessError::File { .. } | AccessError::Newer { .. },
        )
        | None => return Err(error),
        Some(
            AccessError::BadName(_)
            | AccessError::BadScope(_)
            | AccessError::Over
            | AccessError::Password(_),
        ) => Exit::Usage,
        Some(_) => Exit::No,
    };
    Err(Failure::new(exit, error.to_string()).into())
}
