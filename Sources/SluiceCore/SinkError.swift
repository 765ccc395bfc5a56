/// The failure of a sink.
///
/// It answers one question before all others: what now? That is its ``response``. The ``code`` is
/// for programs, the rest for people.
public struct SinkError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What to do about a failure.
    public enum Response: Hashable, Sendable {
        /// The same batch may succeed later; whether it was committed is found out then.
        case retry
        /// Another instance writes, or the database went back: start again from the database.
        case fenced
        /// Nothing can succeed until a person has acted.
        case halt
    }

    /// The code of an error that says that another instance writes.
    public static let locked = "sink.locked"
    /// The code for a batch of which a table refuses most rows: the table is wrong, not the rows.
    public static let refusesMost = "sink.refuses_most"
    /// So many rows of a table are refused in one batch, and they are most of them, before that is so.
    public static let refusalsMin = 100

    /// What to do about it.
    public let response: Response
    /// A stable name: the database's code, or one of Sluice's own.
    public let code: String
    /// What happened, in one sentence that names the table or host concerned, without values.
    public let message: String
    /// What a person can do about it.
    public let hint: String?

    /// Creates an error.
    public init(_ response: Response, code: String, _ message: String, hint: String? = nil) {
        self.response = response
        self.code = code
        self.message = message
        self.hint = hint
    }

    /// The code and the message.
    public var description: String {
        let sentence = "\(message) (\(code))"
        return hint.map { "\(sentence); \($0)" } ?? sentence
    }
}
