//! What changed between two versions of a job.
use super::job::Job;
/// How an allocation follows a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind { None, InPlace { recheck_node: bool }, Destructive }
/// Interim.
pub fn update_kind(old: &Job, new: &Job, group: &str) -> UpdateKind {
    if old.group(group) == new.group(group) { UpdateKind::InPlace { recheck_node: false } } else { UpdateKind::Destructive }
}
