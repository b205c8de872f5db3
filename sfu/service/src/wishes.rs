//! Which video Track is in which slot: pure functions of what there is and what a Participant wants.

use model::id::TrackId;
use model::media::Wish;
use model::room::Source;

/// The most wishes of a Participant; one for each Track of a full Room is more than anybody sees.
pub(crate) const WISHES_MAX: usize = 1024;

/// What a Participant wants to see; sound is put into its slots by who speaks.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    /// Tracks that are not named are received, too.
    automatic: bool,
    /// The Tracks named, in the order of their ids.
    wishes: Vec<Wish>,
}

impl Wants {
    /// These wishes, up to [`WISHES_MAX`]; where a Track is named twice, the first counts.
    pub(crate) fn new(automatic: bool, mut wishes: Vec<Wish>) -> Self {
        wishes.truncate(WISHES_MAX);
        wishes.sort_by_key(|wish| wish.track);
        wishes.dedup_by_key(|wish| wish.track);
        Self { automatic, wishes }
    }

    /// Whether every Track is wanted.
    pub(crate) fn wants_all(&self) -> bool {
        self.automatic && self.wishes.iter().all(|wish| wish.wanted)
    }

    /// Whether a Track is wanted.
    pub(crate) fn wants(&self, track: TrackId) -> bool {
        self.wish(track).map_or(self.automatic, |wish| wish.wanted)
    }

    /// How a Track is wanted, where it is named.
    pub(crate) fn wish(&self, track: TrackId) -> Option<&Wish> {
        let at = self.wishes.binary_search_by_key(&track, |wish| wish.track);
        at.ok().and_then(|at| self.wishes.get(at))
    }
}

/// A video Track somebody else sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) track: TrackId,
    pub(crate) source: Source,
    /// Nothing comes just now.
    pub(crate) is_muted: bool,
}

/// A Track to be seen, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) track: TrackId,
    /// In pixels of the screen; 0 where it can't be seen just now.
    pub(crate) height: u16,
    pub(crate) is_pinned: bool,
    pub(crate) is_screen: bool,
    pub(crate) priority: u8,
}

/// The Tracks to be seen, most wanted first: what is visible before what isn't, screens, pinned ones, priority, and then the order of
/// `offered`. Muted ones are last: they take a slot that nobody else needs, so that they are there when they begin.
pub(crate) fn wanted(offered: &[Offered], wants: &Wants) -> Vec<Wanted> {
    let of_track = |offered: &Offered| {
        let is_screen = offered.source == Source::Screen;
        let wanted = match wants.wish(offered.track) {
            Some(wish) if !wish.wanted => return None,
            None if !wants.automatic => return None,
            Some(wish) => Wanted {
                track: offered.track,
                height: wish.height.unwrap_or(u16::MAX),
                is_pinned: wish.pinned,
                is_screen,
                priority: wish.priority,
            },
            None => Wanted {
                track: offered.track,
                height: u16::MAX,
                is_pinned: false,
                is_screen,
                priority: 0,
            },
        };
        Some((offered.is_muted, wanted))
    };
    let mut wanted: Vec<(bool, Wanted)> = offered.iter().filter_map(of_track).collect();
    wanted.sort_by_key(|(is_muted, wanted)| {
        let first = (
            wanted.height > 0,
            wanted.is_screen,
            wanted.is_pinned,
            wanted.priority,
        );
        (*is_muted, std::cmp::Reverse(first))
    });
    wanted.into_iter().map(|(_, wanted)| wanted).collect()
}

/// What each slot should carry: as many of `wanted` as there are slots, each where it is already if it is in one.
pub(crate) fn assign(slots: &[Option<TrackId>], wanted: &[Wanted]) -> Vec<Option<TrackId>> {
    let chosen: Vec<TrackId> = wanted
        .iter()
        .take(slots.len())
        .map(|wanted| wanted.track)
        .collect();
    let stays = |slot: &Option<TrackId>| slot.filter(|track| chosen.contains(track));
    let mut assigned: Vec<Option<TrackId>> = slots.iter().map(stays).collect();
    for track in chosen {
        if !assigned.contains(&Some(track))
            && let Some(free) = assigned.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(track);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(number: u128) -> TrackId {
        TrackId::from_u128(number)
    }

    fn camera(number: u128) -> Offered {
        Offered {
            track: track(number),
            source: Source::Camera,
            is_muted: false,
        }
    }

    fn wish(number: u128) -> Wish {
        Wish {
            track: track(number),
            wanted: true,
            height: Some(180),
            pinned: false,
            priority: 0,
        }
    }

    fn check(offered: &[Offered], automatic: bool, wishes: &[Wish], expected: &[u128]) {
        let wants = Wants::new(automatic, wishes.to_vec());
        for one in offered {
            assert_eq!(
                wants.wants(one.track),
                expected.contains(&one.track.as_u128())
            );
        }
        let all = expected.len() == offered.len() && automatic;
        assert_eq!(wants.wants_all(), all);
        let tracks: Vec<u128> = wanted(offered, &wants)
            .iter()
            .map(|wanted| wanted.track.as_u128())
            .collect();
        assert_eq!(tracks, expected, "{wishes:?}");
    }

    #[test]
    fn the_most_wanted_comes_first() {
        let cameras = [camera(1), camera(2), camera(3)];
        check(&cameras, true, &[], &[1, 2, 3]);
        check(&cameras, false, &[], &[]);
        check(&cameras, false, &[wish(3), wish(1)], &[1, 3]);

        let changed = |change: fn(&mut Wish)| {
            let mut wish = wish(3);
            change(&mut wish);
            [wish]
        };
        check(
            &cameras,
            true,
            &changed(|wish| wish.wanted = false),
            &[1, 2],
        );
        check(
            &cameras,
            true,
            &changed(|wish| wish.pinned = true),
            &[3, 1, 2],
        );
        check(
            &cameras,
            true,
            &changed(|wish| wish.priority = 1),
            &[3, 1, 2],
        );
        check(
            &cameras,
            true,
            &changed(|wish| (wish.height, wish.pinned) = (Some(0), true)),
            &[1, 2, 3],
        );

        let screen = Offered {
            source: Source::Screen,
            ..camera(4)
        };
        let muted = Offered {
            is_muted: true,
            ..camera(1)
        };
        check(&[muted, camera(2), screen], true, &[], &[4, 2, 1]);
    }

    #[test]
    fn a_track_stays_in_its_slot() {
        let check = |slots: &[u128], wanted: &[u128], expected: &[u128]| {
            let slot = |number: &u128| (*number > 0).then(|| track(*number));
            let slots: Vec<_> = slots.iter().map(slot).collect();
            let wanted: Vec<Wanted> = wanted
                .iter()
                .map(|number| Wanted {
                    track: track(*number),
                    height: 180,
                    is_pinned: false,
                    is_screen: false,
                    priority: 0,
                })
                .collect();
            let expected: Vec<_> = expected.iter().map(slot).collect();
            assert_eq!(assign(&slots, &wanted), expected);
        };
        check(&[0, 0], &[1, 2, 3], &[1, 2]);
        check(&[1, 2], &[3, 2, 1], &[3, 2]);
        check(&[1, 2], &[2], &[0, 2]);
        check(&[1, 2, 0], &[3, 2, 1], &[1, 2, 3]);
        check(&[], &[1], &[]);
        check(&[1, 2], &[], &[0, 0]);
    }
}
