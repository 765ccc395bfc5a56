/// A reply of Redis, in RESP2 or RESP3.
public enum RESPValue: Hashable, Sendable {
    /// A status, such as `OK`.
    case simple(String)
    /// An error, such as `ERR unknown command`.
    case error(String)
    /// A number.
    case integer(Int64)
    /// Bytes.
    case bulk([UInt8])
    /// Nothing.
    case null
    /// Values, those of a map or set included.
    case array([RESPValue])
    /// A message that answers nothing.
    case push([RESPValue])

    /// The bytes of a string, of whatever kind.
    public var bytes: [UInt8]? {
        switch self {
        case .bulk(let bytes): bytes
        case .simple(let text): Array(text.utf8)
        case .integer(let number): Array("\(number)".utf8)
        default: nil
        }
    }

    /// The text of a string, of whatever kind.
    public var text: String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    /// The elements of an array.
    public var elements: [RESPValue]? {
        if case .array(let elements) = self { elements } else { nil }
    }

    /// The number.
    public var integer: Int64? {
        switch self {
        case .integer(let number): number
        case .bulk, .simple: text.flatMap(Int64.init)
        default: nil
        }
    }
}

/// Decodes replies.
public enum RESPDecoder {
    /// The deepest nesting that is taken; Redis's own replies have at most a handful.
    public static let depthMax = 32
    /// The most elements for which room is made before they have come.
    static let reservedMax = 1_024

    /// Decodes the reply at the beginning of some bytes.
    ///
    /// - Returns: The reply and how many bytes it took, or nil when it is not complete.
    public static func decode(
        _ bytes: borrowing Span<UInt8>,
    ) throws(RESPError) -> (value: RESPValue, length: Int)? {
        var position = 0
        guard let value = try decode(bytes, &position, depth: 0) else { return nil }
        return (value, position)
    }

    private static func decode(
        _ bytes: borrowing Span<UInt8>, _ position: inout Int, depth: Int,
    ) throws(RESPError) -> RESPValue? {
        guard depth < depthMax else {
            throw RESPError(offset: position, expected: "at most \(depthMax) levels")
        }
        guard position < bytes.count else { return nil }
        let kind = bytes[position]
        position += 1
        switch kind {
        case UInt8(ascii: "+"): return line(bytes, &position).map(RESPValue.simple)
        case UInt8(ascii: "-"): return line(bytes, &position).map(RESPValue.error)
        // Doubles and big numbers keep the text that Redis wrote.
        case UInt8(ascii: ","), UInt8(ascii: "("):
            return line(bytes, &position).map(RESPValue.simple)
        case UInt8(ascii: ":"):
            return try number(bytes, &position).map { .integer(Int64($0)) }
        case UInt8(ascii: "#"):
            return line(bytes, &position).map { .integer($0 == "t" ? 1 : 0) }
        case UInt8(ascii: "_"): return line(bytes, &position).map { _ in .null }
        case UInt8(ascii: "$"), UInt8(ascii: "!"):
            return try bulk(bytes, &position, isError: kind == UInt8(ascii: "!"))
        case UInt8(ascii: "="):
            // A verbatim string begins with its format and a colon.
            guard case .bulk(let text)? = try bulk(bytes, &position, isError: false) else {
                return nil
            }
            return .bulk(Array(text.dropFirst(4)))
        case UInt8(ascii: "*"), UInt8(ascii: "~"):
            return try array(bytes, &position, depth, factor: 1)
        case UInt8(ascii: "%"): return try array(bytes, &position, depth, factor: 2)
        case UInt8(ascii: ">"):
            guard case .array(let elements)? = try array(bytes, &position, depth, factor: 1) else {
                return nil
            }
            return .push(elements)
        case UInt8(ascii: "|"):
            // Attributes say something about the value after them.
            guard try array(bytes, &position, depth, factor: 2) != nil else { return nil }
            return try decode(bytes, &position, depth: depth + 1)
        default: throw RESPError(offset: position - 1, expected: "the type of a reply")
        }
    }

    private static func line(_ bytes: borrowing Span<UInt8>, _ position: inout Int) -> String? {
        var end = position
        while end + 1 < bytes.count {
            if bytes[end] == 0x0D, bytes[end + 1] == 0x0A {
                let text = unsafe bytes.extracting(position..<end).withUnsafeBufferPointer {
                    unsafe String(decoding: $0, as: UTF8.self)
                }
                position = end + 2
                return text
            }
            end += 1
        }
        return nil
    }

    private static func number(
        _ bytes: borrowing Span<UInt8>, _ position: inout Int,
    ) throws(RESPError) -> Int? {
        guard let line = try RESPNumber.line(bytes, from: position) else { return nil }
        position = line.next
        return line.value
    }

    private static func bulk(
        _ bytes: borrowing Span<UInt8>, _ position: inout Int, isError: Bool,
    ) throws(RESPError) -> RESPValue? {
        guard let length = try number(bytes, &position) else { return nil }
        if length == -1 { return .null }
        guard length >= 0 else { throw RESPError(offset: position, expected: "a length") }
        guard bytes.count - position >= length, bytes.count - position - length >= 2 else {
            return nil
        }
        let end = position + length
        guard bytes[end] == 0x0D, bytes[end + 1] == 0x0A else {
            throw RESPError(offset: end, expected: "CRLF after a string")
        }
        let content = bytes.extracting(position..<end)
        let copy = unsafe content.withUnsafeBufferPointer { unsafe Array($0) }
        position = end + 2
        return isError ? .error(String(decoding: copy, as: UTF8.self)) : .bulk(copy)
    }

    private static func array(
        _ bytes: borrowing Span<UInt8>, _ position: inout Int, _ depth: Int, factor: Int,
    ) throws(RESPError) -> RESPValue? {
        guard let length = try number(bytes, &position) else { return nil }
        if length == -1 { return .null }
        guard length >= 0, length <= Int.max / factor else {
            throw RESPError(offset: position, expected: "a length")
        }
        var elements: [RESPValue] = []
        elements.reserveCapacity(min(length * factor, reservedMax))
        for _ in 0..<length * factor {
            guard let element = try decode(bytes, &position, depth: depth + 1) else { return nil }
            elements.append(element)
        }
        return .array(elements)
    }
}

/// Encodes commands.
public enum RESPEncoder {
    /// A command as an array of bulk strings.
    public static func command(_ arguments: [[UInt8]]) -> [UInt8] {
        var bytes = Array("*\(arguments.count)\r\n".utf8)
        for argument in arguments {
            bytes += Array("$\(argument.count)\r\n".utf8)
            bytes += argument
            bytes += [0x0D, 0x0A]
        }
        return bytes
    }

    /// A command of texts.
    public static func command(_ arguments: String...) -> [UInt8] {
        command(arguments.map { Array($0.utf8) })
    }
}
