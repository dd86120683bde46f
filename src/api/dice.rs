//! The one place where the API gets randomness from: ids and jitter.

use rand::Rng;

/// A source of randomness.
pub trait Dice: Send + Sync + 'static {
    /// Sixteen random bytes, for an id.
    fn bytes(&self) -> [u8; 16];

    /// A number from 0 (inclusive) to 1 (exclusive).
    fn fraction(&self) -> f64 {
        let bytes = self.bytes();
        let wide = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        f64::from(wide) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The operating system's randomness, per thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadDice;

impl Dice for ThreadDice {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }
}
