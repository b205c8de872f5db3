//! The simulated network keeps its promises: order, loss, cuts, partitions, crashes, repetition.

use std::time::Duration;

use sim::{Cut, Event, Link, Network, NodeId, StreamId};

#[test]
fn a_stream_keeps_its_order_under_any_jitter() {
    let (mut net, alice, server) = two(1);
    net.set_link_default(Link {
        jitter: ms(50),
        ..Link::default()
    });
    let stream = net.connect(alice, server);
    for number in 0..100 {
        net.send(stream, alice, number);
    }
    assert_eq!(messages(&mut net), (0..100).collect::<Vec<_>>());
}

#[test]
fn datagrams_are_lost_and_overtake_each_other() {
    let (mut net, alice, server) = two(2);
    net.set_link(
        alice,
        server,
        Link {
            latency: ms(5),
            jitter: ms(50),
            loss_per_mille: 300,
        },
    );
    for number in 0..1000 {
        net.send_datagram(alice, server, number);
    }
    let arrived = messages(&mut net);
    assert!((600..800).contains(&arrived.len()), "{}", arrived.len());
    assert!(!arrived.is_sorted());
}

#[test]
fn a_cut_loses_the_tail_of_what_is_under_way() {
    for seed in 0..50 {
        let (mut net, alice, server) = two(seed);
        let stream = net.connect(alice, server);
        for number in 0..10 {
            net.send(stream, alice, number);
        }
        net.cut(stream, Cut::Noticed);
        net.send(stream, alice, 99);

        let events = all(&mut net);
        let arrived = numbers(&events);
        assert!(
            arrived.iter().copied().eq((0..10).take(arrived.len())),
            "{arrived:?}"
        );
        assert_eq!(closed(&events), [alice, server].into());
    }
}

#[test]
fn a_half_open_stream_is_noticed_by_one_side_alone() {
    let (mut net, alice, server) = two(3);
    let stream = established(&mut net, alice, server);
    net.cut(stream, Cut::NoticedBy(alice));
    net.send(stream, server, 1);
    let events = all(&mut net);
    assert_eq!(
        (numbers(&events), closed(&events)),
        (vec![], [alice].into())
    );

    let stream = established(&mut net, alice, server);
    net.cut(stream, Cut::Silent);
    assert_eq!(all(&mut net), []);
}

#[test]
fn a_close_follows_what_was_sent_before_it() {
    let (mut net, alice, server) = two(4);
    let stream = established(&mut net, alice, server);
    net.send(stream, server, 1);
    net.close(stream, server);
    net.send(stream, server, 2);
    assert_eq!(
        all(&mut net),
        [
            Event::Message {
                stream,
                to: alice,
                message: 1
            },
            Event::Closed { stream, to: alice }
        ]
    );
}

#[test]
fn a_partition_delays_streams_and_loses_datagrams() {
    let (mut net, alice, server) = two(5);
    let stream = established(&mut net, alice, server);
    let until = net.now() + ms(1000);
    net.send(stream, alice, 1); // under way already
    net.partition(alice, server, until);
    net.send(stream, alice, 2);
    net.send_datagram(alice, server, 3);

    assert_eq!(net.next_event_until(until - ms(1)), None);
    assert_eq!(messages(&mut net), [1, 2]);
    assert!(net.now() >= until);
}

#[test]
fn a_crash_takes_streams_and_timers_along() {
    let (mut net, alice, server) = two(6);
    let stream = established(&mut net, alice, server);
    net.set_timer(server, ms(500), 1);
    net.send(stream, alice, 1);
    net.crash(server, true);
    assert_eq!(all(&mut net), [Event::Closed { stream, to: alice }]);

    let refused = net.connect(alice, server);
    assert_eq!(
        all(&mut net),
        [Event::Closed {
            stream: refused,
            to: alice
        }]
    );

    net.restart(server);
    established(&mut net, alice, server);
}

#[test]
fn a_machine_that_dies_is_not_noticed() {
    let (mut net, alice, server) = two(7);
    established(&mut net, alice, server);
    net.crash(server, false);
    assert_eq!(all(&mut net), []);
}

#[test]
fn a_seed_runs_the_same_way_again() {
    let run = |seed| {
        let (mut net, alice, server) = two(seed);
        net.set_link_default(Link {
            latency: ms(1),
            jitter: ms(20),
            loss_per_mille: 200,
        });
        for number in 0..100 {
            net.send_datagram(alice, server, number);
            net.send_datagram(server, alice, number);
        }
        (messages(&mut net), net.now())
    };
    assert_eq!(run(8), run(8));
    assert_ne!(run(8), run(9));
}

fn two(seed: u64) -> (Network<u32>, NodeId, NodeId) {
    let mut net = Network::new(seed);
    let alice = net.add_node("alice");
    let server = net.add_node("server");
    (net, alice, server)
}

fn established(net: &mut Network<u32>, from: NodeId, to: NodeId) -> StreamId {
    let stream = net.connect(from, to);
    assert_eq!(net.next_event(), Some(Event::Accepted { stream, from, to }));
    assert_eq!(
        net.next_event(),
        Some(Event::Connected { stream, to: from })
    );
    stream
}

fn all(net: &mut Network<u32>) -> Vec<Event<u32>> {
    std::iter::from_fn(|| net.next_event()).collect()
}

fn messages(net: &mut Network<u32>) -> Vec<u32> {
    numbers(&all(net))
}

fn numbers(events: &[Event<u32>]) -> Vec<u32> {
    let number = |event: &Event<u32>| match event {
        Event::Message { message, .. } | Event::Datagram { message, .. } => Some(*message),
        _ => None,
    };
    events.iter().filter_map(number).collect()
}

fn closed(events: &[Event<u32>]) -> std::collections::BTreeSet<NodeId> {
    events
        .iter()
        .filter(|e| matches!(e, Event::Closed { .. }))
        .map(Event::node)
        .collect()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
