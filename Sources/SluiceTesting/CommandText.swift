public import SluiceCore

/// A command of texts as bytes, with the places of its arguments.
public struct CommandText: Sendable {
    /// The bytes, one argument after the other.
    public private(set) var bytes: Bytes = []
    /// Where each argument stands in them.
    public private(set) var arguments: [Range<Int>] = []

    /// Creates a command.
    public init(_ words: [String]) {
        for word in words {
            let start = bytes.count
            bytes += Array(word.utf8)
            arguments.append(start..<bytes.count)
        }
    }
}

extension PipelineMachine {
    /// Receives a command; false when it was not taken.
    @discardableResult
    public mutating func receive(_ command: CommandText, length: Int = 10) -> Bool {
        receive(
            command.bytes.span, arguments: command.arguments, isOversized: false, length: length)
    }
}
