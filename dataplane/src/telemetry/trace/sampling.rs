//! Which requests are traced, and what their identifiers say of that.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use rand::Rng;
use sluice_config::v1;
use uuid::Uuid;

/// Asks for a trace, where the sampling lets clients ask.
const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MILLION: u32 = 1_000_000;
/// Where in a UUID of 36 characters Envoy notes whether its request is traced: the place of the version, `4`.
const NOTE: usize = 14;

/// How requests are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    random: u32,
    client: u32,
    overall: u32,
}

impl Sampling {
    /// Reads the resource; unset: everything.
    pub fn compile(config: Option<&v1::Sampling>) -> Self {
        config.map_or(
            Self {
                random: MILLION,
                client: MILLION,
                overall: MILLION,
            },
            |config| Self {
                random: config.random,
                client: config.client,
                overall: config.overall,
            },
        )
    }

    /// `asked`: the client wants a trace. `stable`: what is drawn with, in the place of chance.
    fn draws(self, asked: bool, stable: Option<u32>) -> Option<Note> {
        let drawn = |share: u32, number: Option<u32>| {
            share >= MILLION
                || (share > 0 && number.unwrap_or_else(|| rand::rng().random_range(0..MILLION)) < share)
        };
        let note = if asked && drawn(self.client, None) {
            Note::Client
        } else if drawn(self.random, stable) {
            Note::Sampled
        } else {
            return None;
        };
        drawn(self.overall, stable).then_some(note)
    }
}

/// Which spans are told, by the trace.
#[derive(Debug, Clone, Copy)]
struct Sampler {
    share: u32,
    parent_based: bool,
}

impl Sampler {
    /// By the same rule as the SDKs of OpenTelemetry, so that those with the same share choose the same traces.
    fn draws(self, trace: u128) -> bool {
        let low = (trace & u128::from(u64::MAX)) >> 1;
        low * u128::from(MILLION) < u128::from(self.share) << 63
    }
}

/// Why a request is traced, as its identifier says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// It is not.
    No,
    /// It was drawn.
    Sampled,
    /// The client has asked for it.
    Client,
}

impl Note {
    /// Notes it in the request's identifier, if that is a UUID.
    pub fn put(self, headers: &mut HeaderMap) {
        let Some((_, text)) = request_id(headers) else {
            return;
        };
        let mut text = text.as_bytes().to_vec();
        // What says the same already stays.
        let is_traced = matches!(text[NOTE], b'9' | b'a' | b'b');
        if is_traced == (self != Self::No) {
            return;
        }
        text[NOTE] = match self {
            Self::No => b'4',
            Self::Sampled => b'9',
            Self::Client => b'b',
        };
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(X_REQUEST_ID, value);
        }
    }
}

/// The request's identifier, if it is a UUID in its usual form.
fn request_id(headers: &HeaderMap) -> Option<(Uuid, &str)> {
    let text = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let is_usual = text.len() == uuid::fmt::Hyphenated::LENGTH;
    Some((Uuid::try_parse(text).ok().filter(|_| is_usual)?, text))
}

/// What decides.
#[derive(Debug, Clone)]
pub struct Decisions {
    sampler: Option<Sampler>,
    sampling: Sampling,
    ids: v1::RequestIds,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// The request is traced.
    pub traced: bool,
    /// What is to be noted in its identifier, if anything.
    pub note: Option<Note>,
}

impl Decisions {
    /// Reads the resource.
    pub fn compile(config: &v1::Tracing) -> Self {
        Self {
            sampler: config.sampler.map(|sampler| Sampler {
                share: sampler.share,
                parent_based: sampler.parent_based,
            }),
            sampling: Sampling::compile(config.sampling.as_ref()),
            ids: config.request_ids.unwrap_or_default(),
        }
    }

    /// Whether a request of this trace is traced; `before` is what whoever has sent it has decided, `of_route` what its
    /// rule draws by.
    pub fn decide(
        &self,
        headers: &HeaderMap,
        of_route: Option<Sampling>,
        trace: u128,
        before: Option<bool>,
    ) -> Decided {
        let sampled = |traced| if traced { Note::Sampled } else { Note::No };
        let note = match (self.sampler, before) {
            (Some(sampler), before) => {
                let before = before.filter(|_| sampler.parent_based);
                sampled(before.unwrap_or_else(|| sampler.draws(trace)))
            }
            (None, Some(before)) => sampled(before),
            (None, None) => self.draw(headers, of_route.unwrap_or(self.sampling)),
        };
        Decided {
            traced: note != Note::No,
            note: self.ids.pack.then_some(note),
        }
    }

    fn draw(&self, headers: &HeaderMap, sampling: Sampling) -> Note {
        let id = request_id(headers).filter(|_| self.ids.sample);
        match id.map(|(_, text)| text.as_bytes()[NOTE]) {
            // Whether it is told at all is drawn once, by who noted it.
            Some(b'9' | b'a') => return Note::Sampled,
            Some(b'b') => return Note::Client,
            _ => {}
        }
        // Envoy draws with ten thousandths, by the first half of a UUID's first word.
        let stable = id.map(|(id, _)| id.as_fields().0 % 10_000 * 100);
        let asked = headers.contains_key(X_CLIENT_TRACE_ID);
        sampling.draws(asked, stable).unwrap_or(Note::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(change: impl FnOnce(&mut v1::Tracing)) -> Decisions {
        let mut config = v1::Tracing::default();
        change(&mut config);
        Decisions::compile(&config)
    }

    #[test]
    fn the_sampler_decides_in_the_place_of_all_else() {
        let with = |share, parent_based| {
            let decisions = decisions(|config| {
                config.sampler = Some(v1::Sampler { share, parent_based });
                config.sampling = Some(v1::Sampling {
                    random: MILLION - share,
                    client: MILLION,
                    overall: MILLION,
                });
            });
            move |trace, before| decisions.decide(&HeaderMap::new(), None, trace, before).traced
        };
        let (on, off) = (with(MILLION, false), with(0, false));
        assert!(on(1, Some(false)) && on(u128::MAX, None) && !off(1, Some(true)) && !off(0, None));
        let (on, off) = (with(MILLION, true), with(0, true));
        assert!(!on(1, Some(false)) && on(1, None) && off(1, Some(true)) && !off(1, None));
        let half = with(MILLION / 2, false);
        // Bits beyond the lower half do not count.
        let below = u128::from(u64::MAX / 2);
        assert!(half(below, None) && half(below | (1 << 100), None) && !half(below + 1, None));
    }

    #[test]
    fn identifiers_draw_and_tell() {
        let decisions = decisions(|config| {
            config.request_ids = Some(v1::RequestIds {
                sample: true,
                pack: true,
            });
            config.sampling = Some(v1::Sampling {
                random: MILLION / 2,
                client: MILLION,
                overall: MILLION,
            });
        });
        let seen = |id: &str, more: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, id.parse().unwrap());
            for name in more {
                headers.insert(*name, HeaderValue::from_static("x"));
            }
            let decided = decisions.decide(&headers, None, 1, None);
            decided.note.unwrap().put(&mut headers);
            (decided.traced, headers[X_REQUEST_ID].to_str().unwrap().to_owned())
        };
        // 0x1387 is 4999, the last that is drawn.
        let (last, next) = (
            "00001387-0000-4000-8000-000000000000",
            "00001388-0000-4000-8000-000000000000",
        );
        assert_eq!(seen(last, &[]), (true, last.replace("-4", "-9")));
        assert_eq!(seen(next, &[]), (false, next.to_owned()));
        let asked = next.replace("-4", "-b");
        assert_eq!(seen(next, &["x-client-trace-id"]), (true, asked.clone()));
        assert_eq!(seen(&asked, &[]), (true, asked));
        let of_time = next.replace("-4", "-7");
        assert_eq!(seen(&of_time, &[]), (false, of_time));
        assert_eq!(seen("no uuid", &[]).1, "no uuid");
    }
}
