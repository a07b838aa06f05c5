//! What the numbers of this host mean: users by their ids, as `/etc/passwd` has them.

use std::collections::HashMap;

/// Users of the host by their numbers. The agent reads them; this crate reads no files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNames {
    users: HashMap<u32, Box<str>>,
}

/// Users that are kept, at most: a directory service's list may be long.
const MAX_USERS: usize = 65_536;

impl HostNames {
    /// From a text in the form of passwd(5); lines of another form are left out.
    #[must_use]
    pub fn from_passwd(text: &str) -> Self {
        let mut users = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split(':');
            let (name, id) = (fields.next(), fields.nth(1));
            if let (Some(name), Some(id)) = (name, id.and_then(|id| id.parse().ok()))
                && !name.is_empty()
                && users.len() < MAX_USERS
            {
                // Of two names for one number the first is the one that the host itself shows.
                users.entry(id).or_insert_with(|| name.into());
            }
        }
        Self { users }
    }

    /// The name of a number, written as digits.
    pub(crate) fn user(&self, id: &str) -> Option<&str> {
        self.users.get(&id.parse().ok()?).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number_and_odd_lines_are_left_out() {
        let text = "root:x:0:0:root:/root:/bin/sh\n#old:x:7:7\nbroken\n\neva:x:1000:1000::/home/eva:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nbad:x:-1:0\n";
        let names = HostNames::from_passwd(text);
        assert_eq!(names.user("0"), Some("root"));
        assert_eq!(names.user("1000"), Some("eva"));
        assert_eq!(names.user("7"), None);
        assert_eq!(names.user("4294967295"), None);
        assert_eq!(names.user("x"), None);
    }
}
