/// Why a value does not fit where it should go.
///
/// It never holds the value itself: messages travel to logs, and values belong to the user.
public struct Misfit: Error, Hashable, Sendable {
    /// A stable name for the kind of misfit.
    public enum Code: String, Hashable, Sendable {
        /// The text does not mean a value of the column's type.
        case type = "value.type"
        /// The bytes are not UTF-8, or hold a NUL, which databases do not take in text.
        case text = "value.text"
        /// The key holds a text that is not its column's canonical form.
        case key = "key.form"
        /// The key holds a value of another Redis type than the one that is mapped.
        case wrongType = "key.wrong_type"
        /// The value is larger than the named limit.
        case tooLarge = "value.too_large"
        /// The key was gone before its last state could be read.
        case vanished = "key.vanished"
    }

    /// The kind.
    public let code: Code
    /// What was expected, for a person.
    public let message: String

    /// Creates a misfit.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}
