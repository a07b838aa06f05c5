//! The packs that are compiled in. To add one: a file in `config/packs/` and one line here.
//!
//! The order is the order in which `packs: auto` tries them: what is particular before what is
//! general. Neighbours that decode alike share one matcher.
//!
//! They lie in the program packed, each for itself (`build.rs`), and a text is there only while it
//! is read.

use crate::load::MAX_PACK_BYTES;

macro_rules! packs {
    ($($name:literal,)*) => {
        static PACKS: &[BuiltinPack] = &[
            $(BuiltinPack {
                name: $name,
                packed: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".yaml.zst")),
            },)*
        ];
    };
}

packs! {
    "sshd",
    "sudo",
    "su",
    "cron",
    "systemd-logind",
    "accounts",
    "pam",
    "doas",
    "dovecot",
    "firewall",
    "kernel",
    "pfsense",
    "polkit",
    "postfix",
    "postgresql-syslog",
    "proxmox",
    "pure-ftpd",
    "slapd",
    "sshguard",
    "systemd",
    "wordpress",
    "apache-error",
    "crowdsec",
    "freeradius",
    "haproxy",
    "mariadb-audit",
    "named",
    "redis",
    "samba",
    "squid",
    "strongswan",
    "vaultwarden",
    "vsftpd",
    "webmin",
    "xrdp",
    "apt-history",
    "cassandra",
    "cisco-asa",
    "cisco-ios",
    "clickhouse",
    "django",
    "dnf",
    "dpkg",
    "exim",
    "fail2ban",
    "fortigate",
    "gitea",
    "iis",
    "jenkins-audit",
    "kafka",
    "krb5",
    "lemonldap",
    "lighttpd",
    "mssql",
    "mysql-slow",
    "mysql",
    "nginx-error",
    "openvpn",
    "panos",
    "postgresql",
    "postgresql-csv",
    "proftpd",
    "proxmox-backup",
    "rabbitmq",
    "rails",
    "spring",
    "tomcat",
    "unattended-upgrades",
    "zypper",
    "syslog",
    "nginx-access",
    "auditd",
    "asana",
    "atlassian",
    "auth0",
    "aws-cloudtrail",
    "azure-activity",
    "box",
    "caddy",
    "cloudflare",
    "databricks",
    "docker",
    "dropbox",
    "duo",
    "entra-id",
    "falco",
    "gcp-audit",
    "github",
    "gitlab",
    "google-workspace",
    "kubernetes-audit",
    "microsoft365",
    "mongodb",
    "mongodb-atlas",
    "mongodb-audit",
    "nextcloud",
    "notion",
    "okta",
    "onelogin",
    "onepassword",
    "opensearch-audit",
    "pagerduty",
    "postgresql-json",
    "salesforce",
    "shopify",
    "slack",
    "snowflake",
    "stripe",
    "suricata",
    "tailscale",
    "teleport",
    "traefik",
    "vault",
    "wiz",
    "zeek",
    "zendesk",
    "call-platform",
    "incident-platform",
    "conversation-platform",
    "telephony-platform",
    "elasticsearch-audit",
    "keycloak",
    "grafana",
    "ai-support-platform",
    "generic-cef",
    "generic-leef",
    "generic-logfmt",
    "generic-kv",
    "generic-text",
    // Last: why it refuses a record is what an unknown record's event says.
    "generic-json",
}

/// A pack that is compiled in.
#[derive(Debug, Clone, Copy)]
pub struct BuiltinPack {
    name: &'static str,
    packed: &'static [u8],
}

impl BuiltinPack {
    /// Its name, which is also its file's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its YAML, unpacked.
    ///
    /// # Panics
    /// Never: a test unpacks every one of them.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test unpacks every built-in pack")]
    pub fn text(&self) -> String {
        let text = zstd::bulk::decompress(self.packed, MAX_PACK_BYTES).expect("packed by build.rs");
        String::from_utf8(text).expect("a pack is read as UTF-8 by its test")
    }
}

/// The built-in packs.
#[must_use]
pub fn builtin() -> &'static [BuiltinPack] {
    PACKS
}
