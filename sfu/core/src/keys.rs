//! Where things of a Room live: slabs whose keys name one thing for ever.
//!
//! A key holds the generation of its place, so one that outlived what it named (in a pacer's queue, say) finds nothing instead
//! of whatever came after.

use std::marker::PhantomData;

/// A key of a [`Slab`].
pub(crate) trait Key: Copy {
    fn from_parts(index: u32, generation: u32) -> Self;
    fn parts(self) -> (u32, u32);
}

macro_rules! key {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl $name {
            /// The place of what it names: small, and used again after the end of that.
            pub const fn index(self) -> usize {
                self.index as usize
            }
        }

        impl Key for $name {
            fn from_parts(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }

            fn parts(self) -> (u32, u32) {
                (self.index, self.generation)
            }
        }
    )*};
}

key! {
    /// A Participant of one [`Room`](crate::Room); never used again after they left.
    ParticipantKey,
    /// A Track published in one [`Room`](crate::Room); never used again after it ended.
    TrackKey,
    /// A slot of a Participant: an outgoing stream that carries one Track or another. Never used again after it was removed.
    SlotKey,
}

/// Values at fixed places, found by key in one step.
#[derive(Debug)]
pub(crate) struct Slab<K, T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<K: Key, T> Slab<K, T> {
    pub(crate) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            key: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts in what `make` makes of its own key.
    ///
    /// # Panics
    ///
    /// Above four billion places, which the limits of a Room are far below.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(K) -> T) -> K {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                value: None,
            });
            u32::try_from(self.places.len() - 1).expect("a Room has limits far below 2^32")
        });
        let place = &mut self.places[index as usize];
        let key = K::from_parts(index, place.generation);

        place.value = Some(make(key));
        key
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let (index, generation) = key.parts();
        let place = self.places.get_mut(index as usize)?;
        let value = place.value.take_if(|_| place.generation == generation)?;

        // A place that has used up its generations stays empty.
        if let Some(next) = generation.checked_add(1) {
            place.generation = next;
            self.free.push(index);
        }
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let (index, generation) = key.parts();
        let place = self.places.get(index as usize)?;

        if place.generation == generation {
            place.value.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (index, generation) = key.parts();
        let place = self.places.get_mut(index as usize)?;

        if place.generation == generation {
            place.value.as_mut()
        } else {
            None
        }
    }

    /// All values in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.places
            .iter()
            .zip(0_u32..)
            .filter_map(|(place, index)| {
                let value = place.value.as_ref()?;

                Some((K::from_parts(index, place.generation), value))
            })
    }

    /// All values in the order of their places.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut T)> {
        self.places
            .iter_mut()
            .zip(0_u32..)
            .filter_map(|(place, index)| {
                let generation = place.generation;
                let value = place.value.as_mut()?;

                Some((K::from_parts(index, generation), value))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_what_came_after() {
        let mut slab = Slab::<TrackKey, &str>::new();
        let first = slab.insert_with(|_| "first");

        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert_with(|_| "second");

        assert_eq!(first.parts().0, second.parts().0, "the place is used again");
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&"second")));
        assert_eq!((slab.remove(first), slab.len()), (None, 1));
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(second, &"second")]);
    }
}
