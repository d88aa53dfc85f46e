//! Which requests are mirrored, and where to.

use std::sync::Arc;

use rand::Rng;
use sluice_config::v1;

use super::Lookup;
use crate::upstream::Slot;

/// Sends a share of the requests to a second backend as well.
#[derive(Debug)]
pub struct Mirror {
    backend: Arc<Slot>,
    /// Numerator and denominator of the share; `None`: all.
    share: Option<(u32, u32)>,
}

impl Mirror {
    /// Resolves the backend.
    pub fn compile(config: &v1::Mirror, lookup: &mut dyn Lookup) -> Self {
        let share = (config.denominator != 0).then_some((config.numerator, config.denominator));
        Self {
            backend: lookup.backend(&config.backend),
            share,
        }
    }

    /// The backend, if this request is among those that are mirrored.
    pub fn draw(&self) -> Option<&Arc<Slot>> {
        let drawn = match self.share {
            None => true,
            Some((numerator, denominator)) => rand::rng().random_range(0..denominator) < numerator,
        };
        drawn.then_some(&self.backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(numerator: u32, denominator: u32) -> usize {
        let share = (denominator != 0).then_some((numerator, denominator));
        let mirror = Mirror {
            backend: Arc::default(),
            share,
        };
        (0..1000).filter(|_| mirror.draw().is_some()).count()
    }

    #[test]
    fn shares() {
        assert_eq!(drawn(0, 0), 1000);
        assert_eq!(drawn(0, 100), 0);
        assert_eq!(drawn(100, 100), 1000);
        // Seven standard deviations to either side.
        assert!((140..=260).contains(&drawn(20, 100)));
    }
}
