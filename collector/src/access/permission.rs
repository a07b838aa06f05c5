//! What a reader may do, one thing each; roles are sets of these.

/// One thing that somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Find events and read them.
    Search,
    /// See the record that an event was made from.
    ViewRaw,
    /// See values that a pack has marked as sensitive.
    ViewSensitive,
    /// Make exports and fetch them.
    Export,
    /// Put events on hold and let them go.
    Hold,
    /// Remove a person's data.
    Erase,
    /// Change settings.
    Configure,
    /// Manage users, tokens, agents and keys.
    Administer,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Search,
        Self::ViewRaw,
        Self::ViewSensitive,
        Self::Export,
        Self::Hold,
        Self::Erase,
        Self::Configure,
        Self::Administer,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::ViewRaw => "view_raw",
            Self::ViewSensitive => "view_sensitive",
            Self::Export => "export",
            Self::Hold => "hold",
            Self::Erase => "erase",
            Self::Configure => "configure",
            Self::Administer => "administer",
        }
    }

    /// From its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.name() == name)
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u16);

impl Permissions {
    /// All there are.
    pub const ALL: Self = Self::of(&Permission::ALL);

    /// Those, and no more.
    #[must_use]
    pub const fn of(list: &[Permission]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < list.len() {
            bits |= 1 << list[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    /// Is it in the set?
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u16) != 0
    }

    /// Is every one of these also in `other`?
    #[must_use]
    pub const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Their names, in the order of [`Permission::ALL`].
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Permission::ALL.into_iter().filter(|one| self.has(*one)).map(Permission::name).collect()
    }

    /// From names.
    ///
    /// # Errors
    /// The first that is none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut all = Self::default();
        for name in names {
            let one = Permission::from_name(name).ok_or_else(|| name.to_owned())?;
            all.0 |= Self::of(&[one]).0;
        }
        Ok(all)
    }
}

impl serde::Serialize for Permissions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}
