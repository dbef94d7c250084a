//! To whom a request is addressed: the name in `Host`, or in `:authority` of HTTP/2.
//!
//! A page in a browser can have a name of its own lead to this machine (DNS rebinding), and then asks as if it were at home here:
//! where nobody but this machine is meant to come, and tokens may be those that everybody knows, every page that is looked at could
//! read jobs. The browser says which name it means, and a name that somebody has lead here is neither `localhost` nor an address. It
//! refuses to know what is asked.

use std::net::{Ipv4Addr, Ipv6Addr};

use avtomatika_proto::{ApiError, ErrorCode};
use http::{Request, header::HOST, uri::Authority};

/// The name that every system has for itself.
const LOCAL: &str = "localhost";

/// Whether the request names no other machine than this one. One that names none comes from no browser.
pub(super) fn is_this_machine<B>(request: &Request<B>) -> bool {
    let authority = request.uri().authority().map(Authority::as_str);
    // What is no text is no name of ours.
    let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    authority.into_iter().chain(hosts).all(is_here)
}

/// What is said to somebody who has meant another one.
pub(super) fn elsewhere() -> ApiError {
    let text = "The request names another host, and this port is for its own machine alone: \
                any page in a browser could have a name of its own lead here";
    ApiError::new(ErrorCode::HostForbidden, text)
}

/// Whether it is an address, or `localhost`, or a name below that; with a port or without.
fn is_here(host: &str) -> bool {
    let without_port = host.trim_end_matches(|digit: char| digit.is_ascii_digit()).strip_suffix(':');
    let name = without_port.unwrap_or(host);
    if let Some(address) = name.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let (above, last) = name.split_at_checked(name.len().saturating_sub(LOCAL.len())).unwrap_or_default();
    let is_local = last.eq_ignore_ascii_case(LOCAL) && (above.is_empty() || above.ends_with('.'));
    is_local || name.parse::<Ipv4Addr>().is_ok()
}
