//! What helps where a connection fails for what one side shows or speaks. It goes by the words of the libraries below, as
//! HTTP/2 hands on nothing else of what TLS says.

/// What is said, and what helps; the first that fits counts. Trying again does not help.
const REMEDIES: [(&str, &str); 10] = [
    ("UnknownIssuer", "give --ca-cert FILE with the authority that signs the server's certificate"),
    ("certificate not valid for name", "give --server-name NAME, as the certificate has it, or another address"),
    ("invalid peer certificate", "the server needs another certificate"),
    ("CertificateRequired", "the server asks for a certificate: give --client-cert FILE and --client-key FILE"),
    ("alert: UnknownCA", REFUSED),
    ("alert: CertificateExpired", REFUSED),
    ("alert: CertificateUnknown", REFUSED),
    ("alert: BadCertificate", REFUSED),
    ("frame with invalid size", "the server may speak TLS: try https://HOST:PORT"),
    ("InvalidContentType", "the server may not speak TLS: try http://HOST:PORT"),
];

const REFUSED: &str = "the server does not accept the certificate of --client-cert";

/// What helps against a failure of these words; `None` where trying again may.
pub(crate) fn remedy(words: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(said, _)| words.contains(said)).map(|(_, remedy)| *remedy)
}
