//! HTTP answers as they come over a raw socket.

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A refusal with this status and a sentence that says each of these.
    #[track_caller]
    pub fn refuses(&self, status: u16, words: &[&str]) -> &Response {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.trim().contains(' '), "a refusal has a sentence: {self:?}");
        let length = self.header("Content-Length").and_then(|value| value.parse().ok());
        assert_eq!(length, Some(self.body.len()), "{self:?}");
        for word in words {
            assert!(self.body.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }
}
