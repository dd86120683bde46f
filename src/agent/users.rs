//! Which users tasks may run as on this machine.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use nix::unistd::Uid;
use nix::unistd::User;

/// The client options `user.denylist` and `user.checked_drivers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRules {
    pub denied: BTreeSet<String>,
    /// Drivers whose tasks are held to that.
    pub drivers: BTreeSet<String>,
}

impl Default for UserRules {
    fn default() -> Self {
        Self { denied: names("root,Administrator"), drivers: names("exec,qemu,java") }
    }
}

fn names(list: &str) -> BTreeSet<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl UserRules {
    /// Reads both lists, comma-separated, from a client's options.
    pub fn from_options(options: &BTreeMap<String, String>) -> Self {
        let list = |name: &str, default| options.get(name).map_or(default, |list| names(list));
        let Self { denied, drivers } = Self::default();
        Self { denied: list("user.denylist", denied), drivers: list("user.checked_drivers", drivers) }
    }

    /// May a task of this driver run as this user? A number counts as the name that it stands for.
    pub fn allows(&self, driver: &str, user: &str) -> bool {
        if !self.drivers.contains(driver) {
            return true;
        }
        let user = user.split(':').next().unwrap_or_default();
        let named = || {
            let id = user.parse().ok().map(Uid::from_raw)?;
            User::from_uid(id).ok().flatten().map(|found| found.name)
        };
        !self.denied.contains(user) && !named().is_some_and(|name| self.denied.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_for_isolated_drivers_by_default() {
        let rules = UserRules::default();
        for (driver, user, allowed) in [
            ("exec", "root", false),
            ("java", "root", false),
            ("qemu", "root", false),
            ("exec", "0", false),
            ("exec", "0:0", false),
            ("exec", "", true),
            ("exec", "nobody", true),
            ("raw_exec", "root", true),
            ("docker", "root", true),
        ] {
            assert_eq!(rules.allows(driver, user), allowed, "{driver} {user}");
        }
    }

    #[test]
    fn operators_choose_users_and_drivers() {
        let options = BTreeMap::from([
            ("user.denylist".to_owned(), "games, daemon".to_owned()),
            ("user.checked_drivers".to_owned(), "raw_exec".to_owned()),
        ]);
        let rules = UserRules::from_options(&options);
        assert!(!rules.allows("raw_exec", "daemon") && rules.allows("raw_exec", "root"));
        assert!(rules.allows("exec", "root"));
    }
}
