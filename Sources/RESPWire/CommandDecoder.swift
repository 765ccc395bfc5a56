/// Decodes the commands of a replication stream: arrays of bulk strings, as Redis sends them.
///
/// It holds no bytes. The caller gives it the bytes from the beginning of a command on, and it says
/// where the arguments stand; when they are not all there, it goes on where it stopped, so that a
/// large argument in many pieces is scanned once.
public struct CommandDecoder {
    /// What was decoded.
    public enum Step: Equatable {
        /// A command of this many bytes; its arguments are in ``arguments``.
        case command(length: Int)
        /// More bytes are needed.
        case incomplete
        /// An argument is larger than the limit: the caller takes `count` bytes at `offset` away,
        /// those included that have yet to come, and goes on.
        case skip(offset: Int, count: Int)
    }

    /// The most arguments of a command. Source: `networking.c` of Redis 7.0 and Valkey 9.1.
    public static let argumentsMax = Int(Int32.max)
    /// The largest argument that is held, in bytes.
    public let argumentBytesMax: Int
    /// Where the arguments of the last command stand, relative to its beginning.
    public private(set) var arguments: [Range<Int>] = []
    /// Whether the last command has an argument that was taken away.
    public private(set) var isOversized = false
    /// The bytes that were taken away of the last command.
    public private(set) var skipped = 0

    private var position = 0
    /// The longest argument that any server sends: longer ones are no lengths.
    private static let lengthMax = 1 << 40
    private var count = -1
    private var isDone = true

    /// Creates a decoder.
    public init(argumentBytesMax: Int) {
        self.argumentBytesMax = argumentBytesMax
    }

    /// Forgets a command that is not complete.
    public mutating func reset() {
        isDone = true
    }

    /// Decodes the command at the beginning of `bytes`.
    @inline(__always)
    public mutating func next(_ bytes: borrowing Span<UInt8>) throws(RESPError) -> Step {
        if isDone { begin() }
        if count < 0 {
            guard position < bytes.count else { return .incomplete }
            // Bare line feeds keep a link alive; they stand between commands.
            if bytes[position] == 0x0A, position == 0 {
                isDone = true
                return .command(length: 1)
            }
            guard bytes[position] == UInt8(ascii: "*") else {
                throw RESPError(offset: position, expected: "'*'")
            }
            guard let header = try RESPNumber.line(bytes, from: position + 1) else {
                return .incomplete
            }
            guard header.value >= 0, header.value <= Self.argumentsMax else {
                throw RESPError(offset: position, expected: "up to \(Self.argumentsMax) arguments")
            }
            count = header.value
            position = header.next
        }
        return try decodeArguments(bytes)
    }

    private mutating func begin() {
        arguments.removeAll(keepingCapacity: true)
        isOversized = false
        skipped = 0
        position = 0
        count = -1
        isDone = false
    }

    @inline(__always)
    private mutating func decodeArguments(
        _ bytes: borrowing Span<UInt8>,
    ) throws(RESPError) -> Step {
        while arguments.count < count {
            guard position < bytes.count else { return .incomplete }
            guard bytes[position] == UInt8(ascii: "$") else {
                throw RESPError(offset: position, expected: "'$'")
            }
            guard let header = try RESPNumber.line(bytes, from: position + 1) else {
                return .incomplete
            }
            guard header.value >= 0, header.value <= Self.lengthMax else {
                throw RESPError(offset: position, expected: "a length of up to 1 TB")
            }
            if header.value > argumentBytesMax {
                return skip(header.value, after: header.next)
            }
            let end = header.next + header.value
            guard end + 2 <= bytes.count else { return .incomplete }
            guard bytes[end] == 0x0D, bytes[end + 1] == 0x0A else {
                throw RESPError(offset: end, expected: "CRLF after an argument")
            }
            arguments.append(header.next..<end)
            position = end + 2
        }
        isDone = true
        return .command(length: position)
    }

    // The argument and its CRLF go; what stays of it is its header and an empty range.
    private mutating func skip(_ length: Int, after next: Int) -> Step {
        isOversized = true
        skipped += length + 2
        arguments.append(next..<next)
        position = next
        return .skip(offset: next, count: length + 2)
    }
}
