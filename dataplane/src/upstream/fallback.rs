//! When requests fall back: as far as the backends that they are meant for are not healthy enough.
//!
//! Owns the share; which backends there are is a route's to say.

use rand::Rng;

use super::Slot;

/// Draws whether a request need not fall back: the first backends bear all of the load as long as each endpoint gets at
/// most 40 % more than its share, which 72 % of them suffice for (Envoy's overprovisioning factor).
pub fn need_not<'s>(first: impl Iterator<Item = &'s Slot>, others: impl Iterator<Item = &'s Slot>) -> bool {
    let (healthy, all) = health(first);
    let (can, need) = (healthy * 14, all * 10);
    if all > 0 && can >= need {
        return true;
    }
    // Nobody is helped by falling back to nothing.
    health(others).0 == 0 || (all > 0 && rand::rng().random_range(0..need) < can)
}

/// How many endpoints of these backends are healthy, and how many there are.
fn health<'s>(slots: impl Iterator<Item = &'s Slot>) -> (usize, usize) {
    slots
        .filter_map(Slot::load)
        .map(|backend| backend.health())
        .fold((0, 0), |(healthy, all), (h, a)| (healthy + h, all + a))
}
