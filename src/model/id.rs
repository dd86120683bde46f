//! Identifiers. Generated ones are UUIDs (`Copy`, 16 bytes); named ones are cheap shared strings.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id made of these 16 bytes, marked as a version 4 UUID so that clients accept it.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// The first eight characters, as shown in tables.
            pub fn short(&self) -> String {
                self.0.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// One placement of one group on one node. Never moves.
    AllocId
);
uuid_id!(
    /// A machine that runs an agent.
    NodeId
);
uuid_id!(
    /// A rollout of one job version.
    DeploymentId
);
uuid_id!(
    /// The record of a reconcile pass.
    EvalId
);

/// The namespace that a job without one belongs to.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A job's identity: namespace and id. The id may contain `/` (periodic and dispatched children do).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    pub namespace: Arc<str>,
    pub id: Arc<str>,
}

impl JobId {
    /// The job `id` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), id: id.into() }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
