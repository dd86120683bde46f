//! `server { default_scheduler_config { … } }`: what a new cluster's scheduler begins with.

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

/// The block in the words of the file. What operators set later wins over it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SchedulerDefaults {
    /// `binpack` or `spread`; empty for the first.
    pub scheduler_algorithm: String,
    pub memory_oversubscription_enabled: bool,
    pub reject_job_registration: bool,
    pub pause_eval_broker: bool,
    pub preemption_config: PreemptionDefaults,
}

/// Which jobs may take the place of others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PreemptionDefaults {
    pub system_scheduler_enabled: bool,
    pub sysbatch_scheduler_enabled: bool,
    pub batch_scheduler_enabled: bool,
    pub service_scheduler_enabled: bool,
}

impl Default for SchedulerDefaults {
    fn default() -> Self {
        Self {
            scheduler_algorithm: "binpack".to_owned(),
            memory_oversubscription_enabled: false,
            reject_job_registration: false,
            pause_eval_broker: false,
            preemption_config: PreemptionDefaults::default(),
        }
    }
}

impl Default for PreemptionDefaults {
    fn default() -> Self {
        Self {
            system_scheduler_enabled: true,
            sysbatch_scheduler_enabled: false,
            batch_scheduler_enabled: false,
            service_scheduler_enabled: false,
        }
    }
}

impl SchedulerDefaults {
    /// The configuration as the API shows and stores it.
    pub fn stored(&self) -> Value {
        let preemption = &self.preemption_config;
        json!({
            "SchedulerAlgorithm": self.scheduler_algorithm,
            "PreemptionConfig": {
                "SystemSchedulerEnabled": preemption.system_scheduler_enabled,
                "SysBatchSchedulerEnabled": preemption.sysbatch_scheduler_enabled,
                "BatchSchedulerEnabled": preemption.batch_scheduler_enabled,
                "ServiceSchedulerEnabled": preemption.service_scheduler_enabled,
            },
            "MemoryOversubscriptionEnabled": self.memory_oversubscription_enabled,
            "RejectJobRegistration": self.reject_job_registration,
            "PauseEvalBroker": self.pause_eval_broker,
        })
    }
}
