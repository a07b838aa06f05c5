//! The packs that are compiled in. To add one: a file in `config/packs/` and one line here.
//!
//! The order is the order in which `packs: auto` tries them: what is particular before what is
//! general.

/// Name and text of every built-in pack.
static PACKS: &[(&str, &str)] = &[
    ("sshd", include_str!("../../config/packs/sshd.yaml")),
    ("sudo", include_str!("../../config/packs/sudo.yaml")),
    ("su", include_str!("../../config/packs/su.yaml")),
    ("cron", include_str!("../../config/packs/cron.yaml")),
    ("systemd-logind", include_str!("../../config/packs/systemd-logind.yaml")),
    ("accounts", include_str!("../../config/packs/accounts.yaml")),
    ("pam", include_str!("../../config/packs/pam.yaml")),
    ("syslog", include_str!("../../config/packs/syslog.yaml")),
    ("nginx-access", include_str!("../../config/packs/nginx-access.yaml")),
    ("auditd", include_str!("../../config/packs/auditd.yaml")),
    ("generic-cef", include_str!("../../config/packs/generic-cef.yaml")),
    ("generic-leef", include_str!("../../config/packs/generic-leef.yaml")),
    ("generic-logfmt", include_str!("../../config/packs/generic-logfmt.yaml")),
    ("generic-kv", include_str!("../../config/packs/generic-kv.yaml")),
    // Last: why it refuses a record is what an unknown record's event says.
    ("generic-json", include_str!("../../config/packs/generic-json.yaml")),
];

/// Name and YAML of every built-in pack.
#[must_use]
pub fn builtin() -> &'static [(&'static str, &'static str)] {
    PACKS
}
