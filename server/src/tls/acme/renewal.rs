//! When a certificate is renewed, and when a renewal that failed is tried again.

use std::time::Duration;

use super::super::store::Validity;

/// The most luck there is.
const LUCK_MAX: i64 = u8::MAX as i64;

/// The part of its life that a certificate has left when it is renewed, at least, whatever the authority wishes.
const LEFT_MIN: i64 = 6;

/// How long after the first failure another try is made; twice as long after each further one.
const RETRY_FIRST: Duration = Duration::from_secs(5 * 60);

/// The longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(12 * 3_600);

/// When to renew, in seconds since 1970: in the window that the authority suggests (RFC 9773 §4.2), or else when two thirds of the
/// certificate's life are over. `luck`, any number, spreads servers out.
pub(super) fn renew_at(validity: Validity, window: Option<(i64, i64)>, luck: u8) -> i64 {
    let luck = i64::from(luck);
    let life = validity.end - validity.start;
    let wished = match window {
        Some((start, end)) if start <= end => {
            start.saturating_add(end.saturating_sub(start) / LUCK_MAX * luck)
        }
        _ => validity.start + life * 2 / 3 + life * luck / LUCK_MAX / 50,
    };
    wished.min(validity.end - life / LEFT_MIN)
}

/// How long to wait after `failures` in a row, one at least; `luck`, any number, spreads servers out.
pub(super) fn retry_in(failures: u32, luck: u8) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let wait = RETRY_FIRST.saturating_mul(doubled).min(RETRY_MAX);
    wait.mul_f64(0.8 + 0.4 * f64::from(luck) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_or_when_the_authority_says() {
        let validity = Validity {
            start: 1_000,
            end: 1_900,
        };
        let rows = [
            (None, 0, 1_600),
            (None, 255, 1_618),
            (Some((1_200, 1_300)), 0, 1_200),
            (Some((1_200, 1_455)), 51, 1_251),
            (Some((1_200, 1_455)), 255, 1_455),
            (Some((9_000, 9_900)), 0, 1_750), // Too late for anything.
            (Some((1_300, 1_200)), 0, 1_600), // No window (RFC 9773 §4.2).
        ];
        for (window, luck, expected) in rows {
            assert_eq!(
                renew_at(validity, window, luck),
                expected,
                "{window:?} {luck}"
            );
        }
    }

    #[test]
    fn a_failure_is_waited_out_longer_and_longer() {
        let bounds =
            |failures| [0, u8::MAX].map(|luck| retry_in(failures, luck).as_secs_f64().round());
        let waits = [5, 10, 20, 40, 80, 160, 320, 640, 720, 720];
        for (failures, minutes) in (1..).zip(waits) {
            let seconds = f64::from(minutes) * 60.0;
            assert_eq!(
                bounds(failures),
                [seconds * 0.8, seconds * 1.2].map(f64::round),
                "{failures}"
            );
        }
        assert_eq!(bounds(u32::MAX), bounds(10));
    }
}
