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
}
