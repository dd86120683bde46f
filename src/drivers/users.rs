//! Whom tasks may run as.

use nix::unistd::Group;
use nix::unistd::User;
use nix::unistd::getgrouplist;

use super::DriverError;
use super::supervisor::spec::UserIds;

/// Users and groups of the host that tasks must not run as, from the agent's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

impl Denied {
    /// Reads lists such as `0,1000-1999`.
    ///
    /// # Errors
    /// Names the part that is no number and no range.
    pub fn parse(uids: &str, gids: &str) -> Result<Self, String> {
        Ok(Self { uids: ranges(uids)?, gids: ranges(gids)? })
    }

    /// Is the user none of the denied?
    ///
    /// # Errors
    /// Says which number is denied.
    pub fn check(&self, user: &UserIds) -> Result<(), DriverError> {
        let within =
            |list: &[(u32, u32)], id: u32| list.iter().any(|(low, high)| (*low..=*high).contains(&id));
        let refused = |kind: &str, id: u32| Err(invalid(&format!("running as {kind} {id} is disallowed")));
        if within(&self.uids, user.uid) {
            return refused("uid", user.uid);
        }
        match std::iter::once(&user.gid).chain(&user.groups).find(|gid| within(&self.gids, **gid)) {
            Some(gid) => refused("gid", *gid),
            None => Ok(()),
        }
    }
}

fn ranges(list: &str) -> Result<Vec<(u32, u32)>, String> {
    let mut found = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let range = low.trim().parse().ok().zip(high.trim().parse().ok());
        match range {
            Some((low, high)) if low <= high => found.push((low, high)),
            _ => {
                return Err(format!(
                    "invalid range of ids {part:?}: expected a number, or two joined by a hyphen"
                ));
            }
        }
    }
    Ok(found)
}

fn invalid(text: &str) -> DriverError {
    DriverError::Fatal(format!("failed driver config validation: {text}"))
}

/// Resolves a user name or number; `None` for an empty name.
///
/// # Errors
/// There is no such user.
pub fn resolve(name: &str) -> Result<Option<UserIds>, DriverError> {
    if name.is_empty() {
        return Ok(None);
    }
    let unknown = || invalid(&format!("failed to identify user {name:?}: user: unknown user {name}"));
    let (name, group) = name.split_once(':').unwrap_or((name, ""));
    let by_number = || User::from_uid(name.parse::<u32>().ok()?.into()).ok()?;
    let user = User::from_name(name).ok().flatten().or_else(by_number).ok_or_else(unknown)?;
    let gid = match group {
        "" => user.gid,
        group => Group::from_name(group).ok().flatten().ok_or_else(unknown)?.gid,
    };
    let name = std::ffi::CString::new(user.name).map_err(|_| unknown())?;
    let groups = getgrouplist(&name, gid).unwrap_or_default();
    Ok(Some(UserIds {
        uid: user.uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ids_and_ranges_are_denied() {
        let denied = Denied::parse("0, 1000-1999", "27").unwrap();
        let user = |uid, gid| UserIds { uid, gid, groups: vec![5] };
        let text = |user| denied.check(&user).unwrap_err().to_string();
        assert_eq!(text(user(0, 5)), "failed driver config validation: running as uid 0 is disallowed");
        assert!(text(user(1999, 5)).contains("uid 1999"));
        assert!(text(user(2000, 27)).contains("gid 27"));
        denied.check(&user(2000, 28)).unwrap();
        assert!(Denied::parse("a", "").unwrap_err().contains("\"a\""));
        assert!(Denied::parse("", "9-1").unwrap_err().contains("\"9-1\""));
    }
}
