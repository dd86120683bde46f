//! Chance, from a seed: jitter and backoff that a simulation can repeat. Not for secrets.

use std::time::Duration;

/// A small generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Repeats the same throws for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator that nobody can repeat.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The next throw.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// At least 0, less than 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Sixteen bytes, for an id.
    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes
    }

    /// Between half of `span` and all of it.
    pub fn jitter(&mut self, span: Duration) -> Duration {
        span.mul_f64(0.5 + 0.5 * self.fraction())
    }
}

/// Growing pauses between attempts, with jitter so that a fleet does not knock in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    dice: Dice,
    next: Duration,
}

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer: an agent should be back soon after its store is.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Backoff {
    /// Starts with short pauses.
    pub fn new(dice: Dice) -> Self {
        Self { dice, next: FIRST_PAUSE }
    }

    /// After a success, pauses are short again.
    pub fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }

    /// The length of the next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.dice.jitter(self.next);
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Pauses.
    pub async fn wait(&mut self) {
        let pause = self.pause();
        tokio::time::sleep(pause).await;
    }
}
