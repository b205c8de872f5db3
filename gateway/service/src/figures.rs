//! What happened, as numbers.

use std::collections::BTreeMap;

use gateway_core::transaction::Counters;
use gateway_sip::sanity::Cause;

use crate::admission::Silence;
use crate::sound::MediaFigures;

/// A snapshot of the gateway's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Calls now.
    pub calls: usize,
    /// SIP Legs now.
    pub legs: usize,
    /// Connections over TCP and TLS now.
    pub connections: usize,
    /// Transactions now.
    pub transactions: usize,
    /// Sources that are banned now.
    pub banned: usize,
    /// Trunks.
    pub trunks: usize,
    /// Trunks that can be called now.
    pub trunks_up: usize,
    /// Places where desk phones are registered.
    pub phones: usize,
    /// Callers who wait in Queues.
    pub waiting: usize,
    /// Legs that came in and were taken.
    pub legs_in: u64,
    /// Legs that were dialled.
    pub legs_out: u64,
    /// Calls that ended.
    pub calls_ended: u64,
    /// How calls of people ended, by [`model::phone::PhoneReason::label`].
    pub ends: BTreeMap<&'static str, u64>,
    /// Calls that came in and were refused, by why.
    pub refusals_in: BTreeMap<&'static str, u64>,
    /// Calls that people wanted and were refused, by [`model::phone::PhoneReason::label`].
    pub refusals_out: BTreeMap<&'static str, u64>,
    /// Messages and connections that nothing was heard of, by [`Silence`].
    pub silences: BTreeMap<&'static str, u64>,
    /// Messages that were no SIP, by [`Cause`].
    pub unfit: BTreeMap<&'static str, u64>,
    /// Requests of no call, or none that can be, by [`gateway_core::endpoint::Refusal`].
    pub requests_refused: BTreeMap<&'static str, u64>,
    /// Strangers who were asked for a password.
    pub challenges: u64,
    /// Passwords that were wrong.
    pub password_wrong: u64,
    /// Bans.
    pub bans: u64,
    /// Registrations with providers that were made or renewed.
    pub registrations: u64,
    /// Those that failed.
    pub registrations_failed: u64,
    /// Registrations of desk phones that were taken or renewed.
    pub phone_registrations: u64,
    /// Callers who came to wait in a Queue.
    pub queued: u64,
    /// Callers who showed the PIN of a Room.
    pub entered: u64,
    /// PINs that were wrong.
    pub pins_wrong: u64,
    /// Messages that were left.
    pub messages: u64,
    /// Messages that could not be kept.
    pub messages_lost: u64,
    /// Callers whose message a mailbox took no more.
    pub mailboxes_full: u64,
    /// Files of sound that could not be read.
    pub sounds_broken: u64,
    /// Calls that were ended since the minutes of a day were used up.
    pub minutes_ended: u64,
    /// Calls that went on to the next address of a Trunk.
    pub failovers: u64,
    /// Calls to a Trunk without any address.
    pub no_address: u64,
    /// Calls beyond what a Trunk bears.
    pub trunk_limit: u64,
    /// Calls that withhold their number, which the Trunk does not take.
    pub withheld_refused: u64,
    /// Calls without a port for their media.
    pub no_port: u64,
    /// Calls whose phone had no place in its Room.
    pub no_seat: u64,
    /// Calls that were ended because no keys for their sound could be had by DTLS.
    pub no_keys: u64,
    /// Calls that were ended because nothing was heard of a phone.
    pub silent_ended: u64,
    /// Requests that were not sent since there were too many.
    pub overload: u64,
    /// Requests that are too long for UDP, and went by it all the same.
    pub sent_long_over_udp: u64,
    /// Datagrams that the system did not take.
    pub unsent: u64,
    /// Call records that nobody took.
    pub unkept: u64,
    /// Connections that were refused for their number.
    pub connections_refused: u64,
    /// Transfers that phones asked for and that were begun.
    pub transfers: u64,
    /// Transfers, and calls in the place of others, that were refused, by why.
    pub transfers_refused: BTreeMap<&'static str, u64>,
    /// Responses to nothing of ours.
    pub stray: u64,
    /// Messages that came again.
    pub again: u64,
    /// Packets of media that were lost on their way here.
    pub packets_lost: u64,
    /// Packets of media that came.
    pub packets_received: u64,
}

impl Figures {
    pub(crate) fn silence(&mut self, silence: Silence) {
        count(&mut self.silences, silence.as_str());
    }

    pub(crate) fn unfit(&mut self, cause: Cause) {
        count(&mut self.unfit, cause.as_str());
    }

    pub(crate) fn ended(&mut self, label: &'static str) {
        count(&mut self.ends, label);
    }

    pub(crate) fn refused_in(&mut self, word: &'static str) {
        count(&mut self.refusals_in, word);
    }

    pub(crate) fn transfer_refused(&mut self, word: &'static str) {
        count(&mut self.transfers_refused, word);
    }

    pub(crate) fn refused_out(&mut self, label: &'static str) {
        count(&mut self.refusals_out, label);
    }

    pub(crate) fn media(&mut self, figures: &MediaFigures) {
        self.packets_lost += figures.packets_lost;
        self.packets_received += figures.packets_received;
    }

    pub(crate) fn take_transactions(&mut self, counters: &Counters) {
        for cause in Cause::ALL {
            let known = counters.unfit(cause);
            if known > 0 {
                *self.unfit.entry(cause.as_str()).or_default() += known;
            }
        }
        self.stray = counters.stray;
        self.again = counters.again;
        self.overload += counters.overload;
    }

    /// Puts them where the server's metrics are read.
    pub(crate) fn publish(&self) {
        let gauges = [
            ("offhook_gateway_calls", self.calls),
            ("offhook_gateway_legs", self.legs),
            ("offhook_gateway_connections", self.connections),
            ("offhook_gateway_transactions", self.transactions),
            ("offhook_gateway_banned", self.banned),
            ("offhook_gateway_trunks", self.trunks),
            ("offhook_gateway_trunks_up", self.trunks_up),
            ("offhook_gateway_phones", self.phones),
            ("offhook_gateway_waiting", self.waiting),
        ];
        for (name, value) in gauges {
            metrics::gauge!(name).set(value as f64);
        }
        let counters = [
            ("offhook_gateway_legs_in_total", self.legs_in),
            ("offhook_gateway_legs_out_total", self.legs_out),
            ("offhook_gateway_calls_ended_total", self.calls_ended),
            ("offhook_gateway_challenges_total", self.challenges),
            ("offhook_gateway_passwords_wrong_total", self.password_wrong),
            ("offhook_gateway_bans_total", self.bans),
            ("offhook_gateway_registrations_total", self.registrations),
            (
                "offhook_gateway_registrations_failed_total",
                self.registrations_failed,
            ),
            (
                "offhook_gateway_phone_registrations_total",
                self.phone_registrations,
            ),
            ("offhook_gateway_queued_total", self.queued),
            ("offhook_gateway_entered_total", self.entered),
            ("offhook_gateway_pins_wrong_total", self.pins_wrong),
            ("offhook_gateway_messages_total", self.messages),
            ("offhook_gateway_messages_lost_total", self.messages_lost),
            ("offhook_gateway_mailboxes_full_total", self.mailboxes_full),
            ("offhook_gateway_sounds_broken_total", self.sounds_broken),
            ("offhook_gateway_minutes_ended_total", self.minutes_ended),
            ("offhook_gateway_failovers_total", self.failovers),
            ("offhook_gateway_no_address_total", self.no_address),
            ("offhook_gateway_trunk_limit_total", self.trunk_limit),
            (
                "offhook_gateway_withheld_refused_total",
                self.withheld_refused,
            ),
            ("offhook_gateway_no_port_total", self.no_port),
            ("offhook_gateway_no_seat_total", self.no_seat),
            ("offhook_gateway_no_keys_total", self.no_keys),
            ("offhook_gateway_silent_ended_total", self.silent_ended),
            ("offhook_gateway_overload_total", self.overload),
            (
                "offhook_gateway_sent_long_over_udp_total",
                self.sent_long_over_udp,
            ),
            ("offhook_gateway_unsent_total", self.unsent),
            ("offhook_gateway_unkept_total", self.unkept),
            (
                "offhook_gateway_connections_refused_total",
                self.connections_refused,
            ),
            ("offhook_gateway_transfers_total", self.transfers),
            ("offhook_gateway_stray_total", self.stray),
            ("offhook_gateway_again_total", self.again),
            ("offhook_gateway_packets_lost_total", self.packets_lost),
            (
                "offhook_gateway_packets_received_total",
                self.packets_received,
            ),
        ];
        for (name, value) in counters {
            metrics::counter!(name).absolute(value);
        }
        let by_word = [
            ("offhook_gateway_ended_total", "reason", &self.ends),
            (
                "offhook_gateway_refused_in_total",
                "reason",
                &self.refusals_in,
            ),
            (
                "offhook_gateway_refused_out_total",
                "reason",
                &self.refusals_out,
            ),
            (
                "offhook_gateway_requests_refused_total",
                "cause",
                &self.requests_refused,
            ),
            (
                "offhook_gateway_transfers_refused_total",
                "reason",
                &self.transfers_refused,
            ),
            ("offhook_gateway_silent_total", "cause", &self.silences),
            ("offhook_gateway_unfit_total", "cause", &self.unfit),
        ];
        for (name, label, words) in by_word {
            for (word, value) in words {
                metrics::counter!(name, label => *word).absolute(*value);
            }
        }
    }
}

fn count(words: &mut BTreeMap<&'static str, u64>, word: &'static str) {
    *words.entry(word).or_default() += 1;
}
