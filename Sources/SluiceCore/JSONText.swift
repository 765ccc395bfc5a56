/// Writes and checks JSON.
package enum JSONText {
    /// The deepest nesting that is taken; databases refuse more at their own, higher limits.
    static let depthMax = 256

    /// Appends bytes as a JSON string.
    ///
    /// - Throws: ``Misfit`` if they are not UTF-8 or hold a NUL.
    package static func append(
        _ text: borrowing Span<UInt8>, to output: inout Bytes,
    ) throws(Misfit) {
        try UTF8Text.check(text)
        append(checked: text, to: &output)
    }

    /// Appends any bytes as a JSON string: text as it is, and what is no text that databases take as
    /// `\x` and hexadecimal digits, as PostgreSQL writes `bytea`.
    ///
    /// What begins with `\x` is written so too: no two values become the same string.
    package static func append(any bytes: borrowing Span<UInt8>, to output: inout Bytes) {
        let readsAsDigits =
            bytes.count > 1 && bytes[0] == UInt8(ascii: "\\") && bytes[1] == UInt8(ascii: "x")
        guard readsAsDigits || !UTF8Text.isText(bytes) else {
            return append(checked: bytes, to: &output)
        }
        for byte in "\"\\\\x".utf8 { output.append(byte) }
        for index in 0..<bytes.count {
            output.append(Hex.digit(bytes[index] >> 4))
            output.append(Hex.digit(bytes[index] & 15))
        }
        output.append(UInt8(ascii: "\""))
    }

    private static func append(checked text: borrowing Span<UInt8>, to output: inout Bytes) {
        output.append(UInt8(ascii: "\""))
        for index in 0..<text.count {
            let byte = text[index]
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                output.append(UInt8(ascii: "\\"))
                output.append(byte)
            case 0x0A: output += [UInt8(ascii: "\\"), UInt8(ascii: "n")]
            case 0x0D: output += [UInt8(ascii: "\\"), UInt8(ascii: "r")]
            case 0x09: output += [UInt8(ascii: "\\"), UInt8(ascii: "t")]
            case 0..<0x20:
                let digits = Array("0123456789abcdef".utf8)
                output += Array("\\u00".utf8)
                output += [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            default: output.append(byte)
            }
        }
        output.append(UInt8(ascii: "\""))
    }

    /// Whether bytes are one JSON document that databases take.
    static func isDocument(_ bytes: borrowing Span<UInt8>) -> Bool {
        var scanner = Scanner()
        return UTF8Text.isText(bytes) && scanner.document(bytes)
    }

    /// Follows RFC 8259 without building anything.
    struct Scanner {
        private(set) var position = 0

        init(position: Int = 0) { self.position = position }

        mutating func document(_ text: borrowing Span<UInt8>) -> Bool {
            guard value(text, depth: 0) else { return false }
            space(text)
            return position == text.count
        }

        mutating func value(_ text: borrowing Span<UInt8>, depth: Int) -> Bool {
            space(text)
            guard position < text.count, depth < depthMax else { return false }
            switch text[position] {
            case UInt8(ascii: "{"): return list(text, depth, end: UInt8(ascii: "}"), named: true)
            case UInt8(ascii: "["): return list(text, depth, end: UInt8(ascii: "]"), named: false)
            case UInt8(ascii: "\""): return string(text)
            case UInt8(ascii: "t"): return word("true", text)
            case UInt8(ascii: "f"): return word("false", text)
            case UInt8(ascii: "n"): return word("null", text)
            default: return number(text)
            }
        }

        private mutating func list(
            _ text: borrowing Span<UInt8>, _ depth: Int, end: UInt8, named: Bool,
        ) -> Bool {
            position += 1
            space(text)
            if take(end, text) { return true }
            while true {
                if named {
                    space(text)
                    guard position < text.count, string(text) else { return false }
                    space(text)
                    guard take(UInt8(ascii: ":"), text) else { return false }
                }
                guard value(text, depth: depth + 1) else { return false }
                space(text)
                if take(end, text) { return true }
                guard take(UInt8(ascii: ","), text) else { return false }
            }
        }

        mutating func string(_ text: borrowing Span<UInt8>) -> Bool {
            guard take(UInt8(ascii: "\""), text) else { return false }
            while position < text.count {
                let byte = text[position]
                position += 1
                if byte == UInt8(ascii: "\"") { return true }
                guard byte >= 0x20 else { return false }
                guard byte == UInt8(ascii: "\\") else { continue }
                guard position < text.count else { return false }
                let escaped = text[position]
                position += 1
                if escaped == UInt8(ascii: "u") {
                    guard unicode(text) else { return false }
                } else if !Array("\"\\/bfnrt".utf8).contains(escaped) {
                    return false
                }
            }
            return false
        }

        // A NUL, however it is written, is refused: PostgreSQL's jsonb does not take it.
        private mutating func unicode(_ text: borrowing Span<UInt8>) -> Bool {
            guard position + 4 <= text.count else { return false }
            var isZero = true
            for index in position..<position + 4 {
                let byte = text[index].lowercasedASCII
                let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                guard isDigit || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte) else {
                    return false
                }
                if byte != UInt8(ascii: "0") { isZero = false }
            }
            position += 4
            return !isZero
        }

        private mutating func number(_ text: borrowing Span<UInt8>) -> Bool {
            _ = take(UInt8(ascii: "-"), text)
            let start = position
            guard digits(text) else { return false }
            if text[start] == UInt8(ascii: "0"), position - start > 1 { return false }
            if take(UInt8(ascii: "."), text), !digits(text) { return false }
            if take(UInt8(ascii: "e"), text) || take(UInt8(ascii: "E"), text) {
                if !take(UInt8(ascii: "+"), text) { _ = take(UInt8(ascii: "-"), text) }
                return digits(text)
            }
            return true
        }

        private mutating func digits(_ text: borrowing Span<UInt8>) -> Bool {
            let start = position
            while position < text.count, text[position] &- UInt8(ascii: "0") <= 9 { position += 1 }
            return position > start
        }

        private mutating func word(_ word: StaticString, _ text: borrowing Span<UInt8>) -> Bool {
            for index in 0..<word.utf8CodeUnitCount {
                guard take(unsafe word.utf8Start[index], text) else { return false }
            }
            return true
        }

        mutating func take(_ byte: UInt8, _ text: borrowing Span<UInt8>) -> Bool {
            guard position < text.count, text[position] == byte else { return false }
            position += 1
            return true
        }

        mutating func space(_ text: borrowing Span<UInt8>) {
            while position < text.count, [0x20, 0x0A, 0x0D, 0x09].contains(text[position]) {
                position += 1
            }
        }
    }
}

/// Checks text.
package enum UTF8Text {
    /// Whether bytes are UTF-8 without NUL.
    package static func isText(_ bytes: borrowing Span<UInt8>) -> Bool {
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 0 { return false }
            if byte < 0x80 {
                index += 1
                continue
            }
            guard let length = sequenceLength(bytes, at: index) else { return false }
            index += length
        }
        return true
    }

    static func check(_ bytes: borrowing Span<UInt8>) throws(Misfit) {
        guard isText(bytes) else {
            throw Misfit(.text, "expected UTF-8 text without NUL; map it as `bytes`")
        }
    }

    // Table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing past U+10FFFF.
    private static func sequenceLength(_ bytes: borrowing Span<UInt8>, at index: Int) -> Int? {
        let lead = bytes[index]
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch lead {
        case 0xC2...0xDF: length = 2
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xE1...0xEF: length = 3
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        case 0xF1...0xF3: length = 4
        default: return nil
        }
        guard index + length <= bytes.count, second.contains(bytes[index + 1]) else { return nil }
        for next in (index + 2)..<max(index + 2, index + length)
        where !(0x80...0xBF).contains(bytes[next]) {
            return nil
        }
        return length
    }
}
