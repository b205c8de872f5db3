//! What an answer of ours becomes for a client over HTTP.

/// The answer with `rtcp-mux-only` wherever the offer has it (RFC 9725 §4.4.1, RFC 8858 §4.3).
pub fn answer_with_exclusive_mux(answer: &str, offer: &str) -> String {
    let is_offered = offer.lines().any(|line| line.trim_end() == MUX_ONLY);
    if !is_offered || answer.contains(MUX_ONLY) {
        return answer.to_owned();
    }
    answer.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")
}

const MUX_ONLY: &str = "a=rtcp-mux-only";

/// What an ICE restart is answered with: what `answer` says about ICE, at the section all others are bundled with (RFC 9725
/// §4.3.3, RFC 8840 §9). `None` where the answer has no section with ICE credentials.
pub fn restart_fragment(answer: &str) -> Option<String> {
    let mut lines = answer.lines().map(str::trim_end);
    let session: Vec<&str> = lines
        .by_ref()
        .take_while(|line| !line.starts_with("m="))
        .collect();
    let media = answer
        .lines()
        .map(str::trim_end)
        .find(|line| line.starts_with("m="))?;
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with("m=")).collect();

    let of_session = |line: &&&str| {
        [
            "a=ice-lite",
            "a=ice-options:",
            "a=ice-pacing:",
            "a=group:BUNDLE",
        ]
        .iter()
        .any(|start| line.starts_with(start))
    };
    let with = |start: &'static str| {
        let both = section.iter().chain(&session);
        both.copied().filter(move |line| line.starts_with(start))
    };
    let ufrag = with("a=ice-ufrag:").next()?;
    let password = with("a=ice-pwd:").next()?;

    let mut text = String::with_capacity(512);
    let mut push = |line: &str| {
        text.push_str(line);
        text.push_str("\r\n");
    };
    session
        .iter()
        .filter(of_session)
        .for_each(|line| push(line));
    push(media);
    with("a=mid:").take(1).for_each(&mut push);
    push(ufrag);
    push(password);
    with("a=candidate:").for_each(&mut push);
    push("a=end-of-candidates");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whip::Fragment;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:38sd\r\na=ice-pwd:2e13dde17c1cb009202f627fab90\r\n\
        a=candidate:1 1 UDP 2130706431 198.51.100.1 39132 typ host\r\na=rtcp-mux\r\na=recvonly\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=ice-ufrag:38sd\r\na=ice-pwd:2e13dde17c1cb009202f627fab90\r\n\
        a=rtcp-mux\r\na=recvonly\r\n";

    #[test]
    fn a_restart_is_answered_with_the_new_credentials_and_all_candidates() {
        let fragment = restart_fragment(ANSWER).unwrap();
        assert_eq!(
            fragment,
            "a=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:38sd\r\n\
             a=ice-pwd:2e13dde17c1cb009202f627fab90\r\na=candidate:1 1 UDP 2130706431 198.51.100.1 39132 typ host\r\n\
             a=end-of-candidates\r\n"
        );
        let read = Fragment::read(&fragment).unwrap();
        assert_eq!((read.candidates, read.is_complete), (1, true));
        assert_eq!(restart_fragment("v=0\r\n"), None);
        assert_eq!(restart_fragment("v=0\r\nm=audio 9 x 111\r\n"), None);
    }

    #[test]
    fn exclusive_multiplexing_is_answered_where_it_is_offered() {
        let offer = "m=audio 9 x 111\r\na=rtcp-mux\r\na=rtcp-mux-only\r\n";
        let answer = answer_with_exclusive_mux(ANSWER, offer);
        assert_eq!(
            answer.matches("a=rtcp-mux\r\na=rtcp-mux-only\r\n").count(),
            2
        );
        assert_eq!(answer_with_exclusive_mux(&answer, offer), answer);
        assert_eq!(answer_with_exclusive_mux(ANSWER, "a=rtcp-mux\r\n"), ANSWER);
    }
}
