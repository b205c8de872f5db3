//! What is heard while nobody speaks (RFC 3389).
//!
//! A sender that falls silent tells how loud and of what colour the silence is; the receiver makes noise of that kind. Without it a
//! line sounds dead whenever somebody pauses.

/// The most reflection coefficients that are read; RFC 3389 §3.2 leaves it open, and more than ten tell nothing.
pub const COEFFICIENTS_MAX: usize = 12;

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// How loud, in dB below full scale: 0 to 127.
    pub level: u8,
    /// The reflection coefficients, between -1 and 1.
    coefficients: [f32; COEFFICIENTS_MAX],
    order: usize,
}

impl Description {
    /// White noise of a loudness ([`crate::level`]).
    #[must_use]
    pub fn white(level: u8) -> Self {
        Self {
            level: level.min(127),
            coefficients: [0.0; COEFFICIENTS_MAX],
            order: 0,
        }
    }

    /// Reads a payload; `None` for an empty one. The highest bit of the level is reserved and left out, coefficients beyond
    /// [`COEFFICIENTS_MAX`] are, too.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (level, rest) = payload.split_first()?;
        let mut description = Self::white(level & 127);
        description.order = rest.len().min(COEFFICIENTS_MAX);
        for (coefficient, byte) in description.coefficients.iter_mut().zip(rest) {
            // §3.2 allows no 255; it would be 1, and the filter would ring for ever.
            *coefficient = (f32::from(*byte) - 127.0).clamp(-127.0, 127.0) / 128.0;
        }
        Some(description)
    }

    /// The payload: the level alone, which every receiver takes (§3.1).
    #[must_use]
    pub fn payload(&self) -> [u8; 1] {
        [self.level]
    }
}

/// Makes noise.
#[derive(Debug, Clone)]
pub struct Generator {
    random: u64,
    description: Description,
    /// The peak of the white noise before the filter, so that what leaves it has the level that was told.
    peak: f32,
    state: [f32; COEFFICIENTS_MAX],
}

impl Generator {
    /// A generator of silence. Two with the same `seed` make the same noise, and the noise of a call needs no secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed | 1,
            description: Description::white(127),
            peak: 0.0,
            state: [0.0; COEFFICIENTS_MAX],
        }
    }

    /// Changes the noise.
    pub fn describe(&mut self, description: Description) {
        self.description = description;
        let rms = 32_768.0 * 10_f32.powf(-f32::from(description.level) / 20.0);
        // A lattice of reflection coefficients makes white noise louder by the product of 1 / (1 - k²), in energy.
        let coefficients = &description.coefficients[..description.order];
        let gain: f32 = coefficients.iter().map(|k| 1.0 - k * k).product();
        // Evenly spread numbers have an RMS of their peak over the root of three.
        self.peak = if description.level >= 127 {
            0.0
        } else {
            rms * 3_f32.sqrt() * gain.sqrt()
        };
    }

    /// Fills a frame.
    pub fn fill(&mut self, samples: &mut [i16]) {
        for sample in samples {
            let white = self.white();
            let value = self.lattice(white * self.peak);
            #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
            let value = value.clamp(-32_768.0, 32_767.0) as i16;
            *sample = value;
        }
    }

    /// An all-pole lattice.
    fn lattice(&mut self, input: f32) -> f32 {
        let order = self.description.order;
        let mut forward = input;
        for at in (0..order).rev() {
            let k = self.description.coefficients[at];
            forward -= k * self.state[at];
            if at + 1 < order {
                self.state[at + 1] = self.state[at] + k * forward;
            }
        }
        if order > 0 {
            self.state[0] = forward;
        }
        forward
    }

    /// Between -1 and 1 (xorshift64*).
    fn white(&mut self) -> f32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let bits = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 48;
        let bits = u16::try_from(bits).unwrap_or(u16::MAX);
        f32::from(bits) / 32_767.5 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level;

    fn noise(description: Description) -> Vec<i16> {
        let mut generator = Generator::new(7);
        generator.describe(description);
        let mut samples = vec![0; 80_000];
        generator.fill(&mut samples);
        samples
    }

    #[test]
    fn noise_is_as_loud_as_it_was_told() {
        for expected in [20, 40, 60, 70] {
            let got = level(&noise(Description::white(expected)));
            assert!(got.abs_diff(expected) <= 1, "{expected} became {got}");
        }
        assert!(
            noise(Description::white(127))
                .iter()
                .all(|sample| *sample == 0)
        );
        assert!(Generator::new(1).state.iter().all(|state| *state == 0.0));
    }

    #[test]
    fn noise_has_its_colour_and_keeps_its_loudness() {
        let coloured = Description::parse(&[40, 20, 200, 100]).expect("it is not empty");
        let samples = noise(coloured);
        assert!(level(&samples).abs_diff(40) <= 2, "{}", level(&samples));
        // The first coefficient is negative: neighbours are alike.
        let product: i64 = samples
            .windows(2)
            .map(|pair| i64::from(pair[0]) * i64::from(pair[1]))
            .sum();
        let energy: i64 = samples.iter().map(|sample| i64::from(*sample).pow(2)).sum();
        assert!(product * 2 > energy, "{product} of {energy}");
    }

    #[test]
    fn any_payload_is_finite_noise() {
        assert_eq!(Description::parse(&[]), None);
        for byte in [0, 127, 128, 255] {
            let payload = [vec![30], vec![byte; 40]].concat();
            let description = Description::parse(&payload).expect("it is not empty");
            let samples = noise(description);
            assert!(level(&samples[40_000..]) > 0, "{byte}");
        }
    }

    #[test]
    fn what_is_told_is_read() {
        assert_eq!(
            Description::parse(&Description::white(63).payload()),
            Some(Description::white(63))
        );
        assert_eq!(Description::parse(&[0xff]), Some(Description::white(127)));
    }
}
