//! Methods, status codes and header names.

use std::fmt;

/// A request method. Case-sensitive (RFC 3261 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Prack,
    Update,
    Info,
    Refer,
    Notify,
    Subscribe,
    Message,
    Publish,
    /// Any other token.
    Other,
}

impl Method {
    /// Reads a method's token.
    #[must_use]
    pub fn parse(token: &str) -> Self {
        match token {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "OPTIONS" => Self::Options,
            "REGISTER" => Self::Register,
            "PRACK" => Self::Prack,
            "UPDATE" => Self::Update,
            "INFO" => Self::Info,
            "REFER" => Self::Refer,
            "NOTIFY" => Self::Notify,
            "SUBSCRIBE" => Self::Subscribe,
            "MESSAGE" => Self::Message,
            "PUBLISH" => Self::Publish,
            _ => Self::Other,
        }
    }

    /// The token; empty for [`Method::Other`], whose token is in the message.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Register => "REGISTER",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Info => "INFO",
            Self::Refer => "REFER",
            Self::Notify => "NOTIFY",
            Self::Subscribe => "SUBSCRIBE",
            Self::Message => "MESSAGE",
            Self::Publish => "PUBLISH",
            Self::Other => "",
        }
    }
}

/// A response's status, 100 to 699.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusCode(pub u16);

impl StatusCode {
    /// 1xx.
    #[must_use]
    pub fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// 2xx.
    #[must_use]
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.0)
    }

    /// The reason phrase of RFC 3261 21 and its extensions.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self.0 {
            100 => "Trying",
            180 => "Ringing",
            181 => "Call Is Being Forwarded",
            183 => "Session Progress",
            200 => "OK",
            202 => "Accepted",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            406 => "Not Acceptable",
            407 => "Proxy Authentication Required",
            408 => "Request Timeout",
            413 => "Request Entity Too Large",
            415 => "Unsupported Media Type",
            416 => "Unsupported URI Scheme",
            420 => "Bad Extension",
            422 => "Session Interval Too Small",
            480 => "Temporarily Unavailable",
            481 => "Call/Transaction Does Not Exist",
            482 => "Loop Detected",
            483 => "Too Many Hops",
            486 => "Busy Here",
            487 => "Request Terminated",
            488 => "Not Acceptable Here",
            489 => "Bad Event",
            491 => "Request Pending",
            500 => "Server Internal Error",
            503 => "Service Unavailable",
            504 => "Server Time-out",
            505 => "Version Not Supported",
            603 => "Decline",
            606 => "Not Acceptable",
            _ => "Unknown",
        }
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! header_names {
    ($($variant:ident = $name:literal $(/ $compact:literal)?),+ $(,)?) => {
        /// A header field's name; compact forms are folded in (RFC 3261 7.3.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum HeaderName { $($variant,)+ /** Any other name. */ Other }

        impl HeaderName {
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as we write it; empty for [`HeaderName::Other`].
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ Self::Other => "" }
            }

            /// A compact form's name.
            fn compact(form: &str) -> Self {
                $($(if form.eq_ignore_ascii_case($compact) { return Self::$variant; })?)+
                Self::Other
            }
        }
    };
}

header_names! {
    Via = "Via" / "v",
    From = "From" / "f",
    To = "To" / "t",
    CallId = "Call-ID" / "i",
    CSeq = "CSeq",
    MaxForwards = "Max-Forwards",
    Contact = "Contact" / "m",
    ContentLength = "Content-Length" / "l",
    ContentType = "Content-Type" / "c",
    ContentEncoding = "Content-Encoding" / "e",
    Route = "Route",
    RecordRoute = "Record-Route",
    Accept = "Accept",
    Allow = "Allow",
    Require = "Require",
    Supported = "Supported" / "k",
    Unsupported = "Unsupported",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    Reason = "Reason",
    RetryAfter = "Retry-After",
    Warning = "Warning",
    UserAgent = "User-Agent",
    Server = "Server",
    SessionExpires = "Session-Expires" / "x",
    MinSe = "Min-SE",
    RSeq = "RSeq",
    RAck = "RAck",
    ReferTo = "Refer-To" / "r",
    ReferredBy = "Referred-By" / "b",
    ReferSub = "Refer-Sub",
    Event = "Event" / "o",
    SubscriptionState = "Subscription-State",
    Replaces = "Replaces",
}

/// Longest name, and how many have the same length at most.
const LONGEST: usize = 19;
const SAME: usize = 4;

/// The names by their length, which alone rules nearly all of them out.
const BY_LENGTH: [[HeaderName; SAME]; LONGEST + 1] = {
    let mut table = [[HeaderName::Other; SAME]; LONGEST + 1];
    let mut filled = [0; LONGEST + 1];
    let mut next = 0;
    while next < HeaderName::ALL.len() {
        let name = HeaderName::ALL[next];
        let length = name.as_str().len();
        // A name too long, or one too many, does not compile.
        table[length][filled[length]] = name;
        filled[length] += 1;
        next += 1;
    }
    table
};

impl HeaderName {
    /// Reads a name, whatever its case.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        if name.len() == 1 {
            return Self::compact(name);
        }
        let known = BY_LENGTH.get(name.len()).map_or(&[][..], |names| &names[..]);
        // Nearly all write them as we do.
        let is = |known: &&Self| known.as_str() == name || known.as_str().eq_ignore_ascii_case(name);
        known.iter().find(is).copied().unwrap_or(Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_so_is_its_compact_form() {
        for &name in HeaderName::ALL {
            let text = name.as_str();
            for written in [text.to_owned(), text.to_ascii_uppercase(), text.to_ascii_lowercase()] {
                assert_eq!(HeaderName::parse(&written), name);
            }
            assert_eq!(HeaderName::parse(&format!("{text}x")), HeaderName::Other);
        }
        for (form, name) in [
            ("v", HeaderName::Via),
            ("f", HeaderName::From),
            ("t", HeaderName::To),
            ("i", HeaderName::CallId),
            ("m", HeaderName::Contact),
            ("l", HeaderName::ContentLength),
            ("c", HeaderName::ContentType),
            ("e", HeaderName::ContentEncoding),
            ("k", HeaderName::Supported),
            ("x", HeaderName::SessionExpires),
            ("r", HeaderName::ReferTo),
            ("b", HeaderName::ReferredBy),
            ("o", HeaderName::Event),
        ] {
            assert_eq!(HeaderName::parse(form), name);
            assert_eq!(HeaderName::parse(&form.to_ascii_uppercase()), name);
        }
        for other in ["", "z", "X-Anything", "Proxy-Authorizations"] {
            assert_eq!(HeaderName::parse(other), HeaderName::Other);
        }
    }
}
