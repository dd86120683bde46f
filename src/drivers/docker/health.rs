//! Whether Docker is well. A daemon that is slow, because its machine is busy, is not one that is gone.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::drivers::undetected;
use crate::model::node::DriverInfo;

/// What the daemon is asked first must be answered within this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A daemon that has answered before may be silent for so long before nothing more is placed here.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// The newest answer, and when it came.
#[derive(Debug, Default)]
pub(super) struct Health {
    last: Mutex<Option<(DriverInfo, Instant)>>,
}

impl Health {
    /// What to tell of the driver, given the daemon's answer about itself; nothing when it cannot be reached.
    pub(super) async fn judge(&self, answer: impl Future<Output = Option<DriverInfo>>) -> DriverInfo {
        let answer = tokio::time::timeout(ANSWER_LIMIT, answer).await;
        let mut last = self.last.lock();
        match (answer, &*last) {
            (Ok(Some(info)), _) => {
                *last = Some((info.clone(), Instant::now()));
                info
            }
            (Err(_), Some((info, heard))) if heard.elapsed() < SILENCE_LIMIT => info.clone(),
            (_, before) => {
                let mut info = undetected("Failed to connect to docker daemon");
                // One that was there is ill and not absent.
                info.detected = before.is_some();
                info
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::drivers::healthy;

    #[tokio::test(start_paused = true)]
    async fn a_slow_daemon_is_well_for_a_while_and_one_that_refuses_is_not() {
        let health = Health::default();
        let state = |info: DriverInfo| (info.detected, info.healthy);
        let silence = || std::future::pending::<Option<DriverInfo>>();
        assert_eq!(state(health.judge(silence()).await), (false, false), "it never answered");
        let answer = async { Some(healthy("docker", BTreeMap::new())) };
        assert_eq!(state(health.judge(answer).await), (true, true));
        for _ in 0..2 {
            assert_eq!(state(health.judge(silence()).await), (true, true));
        }
        assert_eq!(state(health.judge(async { None }).await), (true, false), "nobody listens any more");
        tokio::time::sleep(SILENCE_LIMIT).await;
        assert_eq!(state(health.judge(silence()).await), (true, false));
    }
}
