//! The same things in the words of rows, of SIP and of signaling.

use gateway_core::leg::{Ended, SessionPolicy, Why};
use gateway_sip::negotiate::{Capabilities, Codec, KEY_BYTES_LEN, Local, MasterKeyBytes, Security};
use gateway_sip::{Host, StatusCode};
use model::phone::rows;
use model::phone::{PhoneEnd, PhoneReason};
use rand::{Rng, RngExt};
use std::net::IpAddr;
use zeroize::Zeroizing;

use super::Exchange;
use crate::config::Config;

impl Exchange {
    /// Our end of a Leg's media.
    pub(super) fn local(&mut self, address: IpAddr, port: u16) -> Local {
        let mut keys = Zeroizing::new([0; KEY_BYTES_LEN]);
        self.rng.fill_bytes(&mut *keys);
        Local {
            address,
            port,
            // Signed in some readers: no number above theirs.
            session: self.rng.random::<u64>() >> 2,
            version: 1,
            key_bytes: MasterKeyBytes(keys),
            fingerprint: self.sound.fingerprint(),
            active: None,
        }
    }
}

pub(super) fn host_of(host: &rows::Host) -> Host {
    match host.ip() {
        Some(ip) => Host::Ip(ip),
        None => Host::Name(host.as_str().to_owned()),
    }
}

/// What the media of a Trunk or a desk phone may be; `events` is whether keys go with the sound (RFC 4733).
pub(super) fn capabilities(codecs: &[rows::Codec], events: bool, srtp: rows::Srtp) -> Capabilities {
    let codec = |codec: &rows::Codec| match codec {
        rows::Codec::Pcma => Codec::Pcma,
        rows::Codec::Pcmu => Codec::Pcmu,
        rows::Codec::G722 => Codec::G722,
        rows::Codec::Opus => Codec::Opus,
    };
    Capabilities {
        codecs: codecs.iter().map(codec).collect(),
        dtmf: events,
        comfort_noise: true,
        security: match srtp {
            rows::Srtp::Off => Security::Off,
            rows::Srtp::Optional => Security::Accept,
            rows::Srtp::Required => Security::Require,
            rows::Srtp::Dtls => Security::Dtls,
        },
    }
}

/// The same of a Trunk.
pub(super) fn capabilities_of(trunk: &rows::Trunk) -> Capabilities {
    capabilities(&trunk.codecs, trunk.dtmf != rows::Dtmf::Info, trunk.srtp)
}

pub(super) fn session_policy(config: &Config) -> SessionPolicy {
    SessionPolicy {
        interval: config.session_seconds,
        ..SessionPolicy::default()
    }
}

/// What became of a call, for people. `answered` is whether they had talked, and `rung` whether it had rung.
pub(super) fn phone_end(ended: Ended, answered: bool, rung: bool) -> PhoneEnd {
    let code = ended.code.get();
    let reason = match (ended.why, code) {
        (Why::Expired, _) => PhoneReason::TimedOut,
        (Why::Vanished, _) if answered => PhoneReason::TimedOut,
        (Why::Media, _) => PhoneReason::NoCodec,
        (Why::Protocol, _) => PhoneReason::Failed,
        _ if answered => PhoneReason::Hangup,
        (Why::Vanished, _) => PhoneReason::Unreachable,
        (_, 200..300 | 487) => PhoneReason::Cancelled,
        (_, code) => reason_of(code, rung),
    };
    let sip = (ended.why == Why::Remote && code >= 300 && !answered).then_some(code);
    PhoneEnd {
        reason,
        sip,
        cause: ended.cause.unwrap_or(reason.cause()),
    }
}

fn reason_of(code: u16, rung: bool) -> PhoneReason {
    match code {
        486 | 600 => PhoneReason::Busy,
        480 => PhoneReason::NoAnswer,
        408 if rung => PhoneReason::NoAnswer,
        408 => PhoneReason::Unreachable,
        603 | 607 | 608 => PhoneReason::Declined,
        404 | 410 | 484 | 604 => PhoneReason::NoSuchNumber,
        401 | 403 | 407 => PhoneReason::Refused,
        415 | 488 | 606 => PhoneReason::NoCodec,
        482 | 483 => PhoneReason::Loop,
        500 | 502..=504 | 513 => PhoneReason::Congested,
        _ => PhoneReason::Failed,
    }
}

/// What a caller's provider is told of an end signaling gives, as a cause of Q.850 (RFC 3398 §8.2.6.1).
pub(super) fn code_of_cause(cause: u8) -> StatusCode {
    match cause {
        1..=3 => StatusCode::NOT_FOUND,
        17 => StatusCode::BUSY_HERE,
        18 => StatusCode::REQUEST_TIMEOUT,
        21 => StatusCode::DECLINE,
        22 => StatusCode::GONE,
        28 => StatusCode::ADDRESS_INCOMPLETE,
        57 | 55 | 87 => StatusCode::FORBIDDEN,
        65 | 88 => StatusCode::NOT_ACCEPTABLE_HERE,
        34 | 38 | 41 | 42 | 47 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::TEMPORARILY_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_who_should_do_what() {
        let check = |why, code, answered, rung, expected| {
            let ended = Ended {
                code: StatusCode::new(code).unwrap(),
                cause: None,
                why,
            };
            assert_eq!(phone_end(ended, answered, rung).reason, expected, "{code}");
        };
        check(Why::Remote, 200, true, true, PhoneReason::Hangup);
        check(Why::Local, 200, true, true, PhoneReason::Hangup);
        check(Why::Remote, 486, false, true, PhoneReason::Busy);
        check(Why::Remote, 408, false, true, PhoneReason::NoAnswer);
        check(Why::Vanished, 408, false, false, PhoneReason::Unreachable);
        check(Why::Vanished, 408, true, true, PhoneReason::TimedOut);
        check(Why::Expired, 200, true, true, PhoneReason::TimedOut);
        check(Why::Remote, 403, false, false, PhoneReason::Refused);
        check(Why::Media, 488, false, false, PhoneReason::NoCodec);
        check(Why::Local, 487, false, true, PhoneReason::Cancelled);
        check(Why::Remote, 503, false, false, PhoneReason::Congested);
    }

    #[test]
    fn the_code_of_the_other_side_is_told_where_it_ended_the_call() {
        let ended = Ended {
            code: StatusCode::BUSY_HERE,
            cause: Some(17),
            why: Why::Remote,
        };
        assert_eq!(phone_end(ended, false, true).sip, Some(486));
        assert_eq!(phone_end(ended, true, true).sip, None);
        assert_eq!(phone_end(ended, false, true).cause, 17);
        assert_eq!(code_of_cause(17), StatusCode::BUSY_HERE);
        assert_eq!(code_of_cause(19), StatusCode::TEMPORARILY_UNAVAILABLE);
    }
}
