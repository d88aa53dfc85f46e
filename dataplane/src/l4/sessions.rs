//! The UDP sessions of one socket: one for each client address, bounded in number.
//!
//! Owns who is in and who is put out. Sends and receives nothing.

use std::net::SocketAddr;

use ahash::AHashMap;
use tokio::time::Instant;

/// Sessions by client address.
pub(super) struct Sessions<S> {
    held: AHashMap<SocketAddr, Held<S>>,
    limit: usize,
    next: u64,
}

struct Held<S> {
    id: u64,
    last: Instant,
    session: S,
}

impl<S> Sessions<S> {
    /// At most `limit` sessions at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            held: AHashMap::new(),
            limit,
            next: 0,
        }
    }

    /// The session of a client, which is marked as used now.
    pub(super) fn touch(&mut self, client: SocketAddr) -> Option<&mut S> {
        let held = self.held.get_mut(&client)?;
        held.last = Instant::now();
        Some(&mut held.session)
    }

    /// The number that the next session will have.
    pub(super) fn next_id(&self) -> u64 {
        self.next
    }

    /// Adds a session. If there is no room, those that have been idle longest go.
    pub(super) fn insert(&mut self, client: SocketAddr, session: S) {
        if self.held.len() >= self.limit {
            self.evict();
        }
        let id = self.next;
        self.next += 1;
        self.held.insert(
            client,
            Held {
                id,
                last: Instant::now(),
                session,
            },
        );
    }

    /// Puts out the sixteenth that has been idle longest, at least one: looking for the oldest walks over all, and a
    /// flood of new clients must not cause that walk for each.
    pub(super) fn evict(&mut self) {
        let mut ages: Vec<_> = self
            .held
            .iter()
            .map(|(client, held)| (held.last, held.id, *client))
            .collect();
        let count = (ages.len() / 16).max(1).min(ages.len());
        if count == 0 {
            return;
        }
        ages.select_nth_unstable(count - 1);
        for (.., client) in &ages[..count] {
            self.held.remove(client);
        }
    }

    /// Removes a session, unless the client has another one by now.
    pub(super) fn remove(&mut self, client: SocketAddr, id: u64) {
        if self.held.get(&client).is_some_and(|held| held.id == id) {
            self.held.remove(&client);
        }
    }

    /// Removes the session of a client.
    pub(super) fn end(&mut self, client: SocketAddr) {
        self.held.remove(&client);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_go_first() {
        let mut sessions = Sessions::new(32);
        for port in 1..=32 {
            sessions.insert(client(port), ());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        sessions.touch(client(1)).unwrap();
        sessions.insert(client(100), ());
        assert_eq!(sessions.len(), 31);
        assert!(sessions.touch(client(1)).is_some());
        assert!(sessions.touch(client(2)).is_none());
        assert!(sessions.touch(client(3)).is_none());
        assert!(sessions.touch(client(4)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_end_does_not_touch_a_new_session() {
        let mut sessions = Sessions::new(4);
        let first = sessions.next_id();
        sessions.insert(client(1), ());
        sessions.end(client(1));
        let second = sessions.next_id();
        sessions.insert(client(1), ());
        sessions.remove(client(1), first);
        assert!(sessions.touch(client(1)).is_some());
        sessions.remove(client(1), second);
        assert!(sessions.touch(client(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_evict_is_fine() {
        let mut sessions = Sessions::<()>::new(0);
        sessions.evict();
        sessions.insert(client(1), ());
        assert_eq!(sessions.len(), 1);
    }
}
