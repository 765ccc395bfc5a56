package import SluiceCore

/// A JSON document as it is written, and the form in which it is compared: databases write the same
/// document in other ways.
package struct JSONDocument {
    private enum Content {
        case word
        case number
        case string(Bytes)
        case array([JSONDocument])
        case object([Bytes: JSONDocument])
    }

    private let content: Content
    private let written: ArraySlice<UInt8>

    /// Parses a text; nil when it is no document.
    package init?(_ text: Bytes) {
        var parser = Parser(text: text)
        guard let document = parser.value(depth: 0) else { return nil }
        parser.space()
        guard parser.position == text.count else { return nil }
        self = document
    }

    private init(_ content: Content, _ written: ArraySlice<UInt8>) {
        self.content = content
        self.written = written
    }

    /// What stands in a place: a string without its quotes unless `isJSON`, all else as it is written;
    /// nil when there is nothing, or null.
    package func value(at path: JSONPath, isJSON: Bool) -> Bytes? {
        var place = self
        for step in path.steps {
            switch (step, place.content) {
            case (.member(let name), .object(let members)):
                guard let member = members[name] else { return nil }
                place = member
            case (.element(let index), .array(let elements)):
                guard elements.indices.contains(index) else { return nil }
                place = elements[index]
            default: return nil
            }
        }
        if !isJSON, case .string(let bytes) = place.content { return bytes }
        return place.written.elementsEqual("null".utf8) ? nil : Bytes(place.written)
    }

    // MARK: Comparing

    /// The document without what does not matter: no space, members in order, numbers in one form.
    package var canonical: Bytes {
        var output: Bytes = []
        append(to: &output)
        return output
    }

    private func append(to output: inout Bytes) {
        switch content {
        case .word: output += written
        case .number: output += Self.number(written) ?? Bytes(written)
        case .string(let bytes): Self.append(string: bytes, to: &output)
        case .array(let elements):
            Self.append(elements, "[", "]", to: &output) { $0.append(to: &$1) }
        case .object(let members):
            let sorted = members.sorted { $0.key.precedes($1.key) }
            Self.append(sorted, "{", "}", to: &output) { member, output in
                Self.append(string: member.key, to: &output)
                output.append(UInt8(ascii: ":"))
                member.value.append(to: &output)
            }
        }
    }

    private static func append<Element>(
        _ elements: [Element], _ start: Unicode.Scalar, _ end: Unicode.Scalar,
        to output: inout Bytes, _ append: (Element, inout Bytes) -> Void,
    ) {
        output.append(UInt8(ascii: start))
        for (index, element) in elements.enumerated() {
            if index > 0 { output.append(UInt8(ascii: ",")) }
            append(element, &output)
        }
        output.append(UInt8(ascii: end))
    }

    private static func append(string bytes: Bytes, to output: inout Bytes) {
        output.append(UInt8(ascii: "\""))
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                output += [UInt8(ascii: "\\"), byte]
            case 0..<0x20: output += "\\u00\(Hex.text([byte]))".utf8
            default: output.append(byte)
            }
        }
        output.append(UInt8(ascii: "\""))
    }

    /// An array of strings in the form in which it is compared.
    static func canonical(strings: [Bytes]) -> Bytes {
        var output: Bytes = []
        append(strings, "[", "]", to: &output) { append(string: $0, to: &$1) }
        return output
    }

    /// An object of strings in the form in which it is compared.
    static func canonical(strings: [Bytes: Bytes]) -> Bytes {
        var output: Bytes = []
        append(strings.sorted { $0.key.precedes($1.key) }, "{", "}", to: &output) {
            append(string: $0.key, to: &$1)
            $1.append(UInt8(ascii: ":"))
            append(string: $0.value, to: &$1)
        }
        return output
    }

    /// The longest form of a number that is written without an exponent.
    private static let plainMax = 400

    /// A decimal number in one form, however many digits it has; nil when it is none.
    static func number(_ text: some Collection<UInt8>) -> Bytes? {
        var rest = text[...]
        let isNegative = rest.first == UInt8(ascii: "-")
        if isNegative { rest = rest.dropFirst() }
        let mantissa = rest.prefix { $0 | 0x20 != UInt8(ascii: "e") }
        var exponent = 0
        if mantissa.count < rest.count {
            let digits = String(decoding: rest.dropFirst(mantissa.count + 1), as: UTF8.self)
            guard let value = Int(digits), value.magnitude < 1 << 32 else { return nil }
            exponent = value
        }
        var digits: Bytes = []
        var hasPoint = false
        for byte in mantissa {
            if byte == UInt8(ascii: "."), !hasPoint {
                hasPoint = true
            } else {
                guard UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte else { return nil }
                digits.append(byte)
                if hasPoint { exponent -= 1 }
            }
        }
        guard !digits.isEmpty else { return nil }
        digits.removeFirst(digits.prefix { $0 == UInt8(ascii: "0") }.count)
        while digits.last == UInt8(ascii: "0") {
            digits.removeLast()
            exponent += 1
        }
        if digits.isEmpty { return [UInt8(ascii: "0")] }
        return (isNegative ? [UInt8(ascii: "-")] : []) + plain(digits, exponent)
    }

    private static func plain(_ digits: Bytes, _ exponent: Int) -> Bytes {
        let zero = UInt8(ascii: "0")
        guard digits.count + abs(exponent) <= plainMax else { return digits + "e\(exponent)".utf8 }
        if exponent >= 0 { return digits + Bytes(repeating: zero, count: exponent) }
        let padding = Bytes(repeating: zero, count: max(0, 1 - exponent - digits.count))
        let all = padding + digits
        return all.dropLast(-exponent) + [UInt8(ascii: ".")] + all.suffix(-exponent)
    }

    // MARK: Parsing

    private struct Parser {
        /// More than what is ever written to a row.
        static let depthMax = 300

        let text: Bytes
        var position = 0

        mutating func value(depth: Int) -> JSONDocument? {
            space()
            let start = position
            guard position < text.count, depth < Self.depthMax else { return nil }
            let content: Content?
            switch text[position] {
            case UInt8(ascii: "{"): content = object(depth)
            case UInt8(ascii: "["): content = array(depth)
            case UInt8(ascii: "\""): content = string().map(Content.string)
            default: content = bare()
            }
            return content.map { JSONDocument($0, text[start..<position]) }
        }

        private mutating func object(_ depth: Int) -> Content? {
            position += 1
            var members: [Bytes: JSONDocument] = [:]
            if take("}") { return .object(members) }
            repeat {
                space()
                guard let name = string(), take(":"), let value = value(depth: depth + 1) else {
                    return nil
                }
                // Of a name that stands twice, the last counts.
                members[name] = value
            } while take(",")
            return take("}") ? .object(members) : nil
        }

        private mutating func array(_ depth: Int) -> Content? {
            position += 1
            var elements: [JSONDocument] = []
            if take("]") { return .array(elements) }
            repeat {
                guard let value = value(depth: depth + 1) else { return nil }
                elements.append(value)
            } while take(",")
            return take("]") ? .array(elements) : nil
        }

        // A number, or one of the three words.
        private mutating func bare() -> Content? {
            for word in ["null", "true", "false"] where text[position...].starts(with: word.utf8) {
                position += word.utf8.count
                return .word
            }
            _ = skip("-")
            let start = position
            guard digits(), text[start] != UInt8(ascii: "0") || position == start + 1 else {
                return nil
            }
            if skip("."), !digits() { return nil }
            if skip("e") || skip("E") {
                if !skip("+") { _ = skip("-") }
                guard digits() else { return nil }
            }
            return .number
        }

        private mutating func digits() -> Bool {
            let start = position
            while position < text.count, text[position] &- UInt8(ascii: "0") <= 9 { position += 1 }
            return position > start
        }

        private mutating func skip(_ mark: Unicode.Scalar) -> Bool {
            guard position < text.count, text[position] == UInt8(ascii: mark) else { return false }
            position += 1
            return true
        }

        private mutating func string() -> Bytes? {
            guard position < text.count, text[position] == UInt8(ascii: "\"") else { return nil }
            position += 1
            var bytes: Bytes = []
            while position < text.count {
                let byte = text[position]
                position += 1
                if byte == UInt8(ascii: "\"") { return bytes }
                guard byte >= 0x20 else { return nil }
                guard byte == UInt8(ascii: "\\") else {
                    bytes.append(byte)
                    continue
                }
                guard position < text.count else { return nil }
                let escaped = text[position]
                position += 1
                switch escaped {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"):
                    bytes.append(escaped)
                case UInt8(ascii: "b"): bytes.append(8)
                case UInt8(ascii: "f"): bytes.append(12)
                case UInt8(ascii: "n"): bytes.append(10)
                case UInt8(ascii: "r"): bytes.append(13)
                case UInt8(ascii: "t"): bytes.append(9)
                case UInt8(ascii: "u"):
                    guard let character = character() else { return nil }
                    bytes += character
                default: return nil
                }
            }
            return nil
        }

        // After `\u`; two surrogates in a row are one character.
        private mutating func character() -> Bytes? {
            guard let first = unit() else { return nil }
            var units = [first]
            if 0xD800..<0xDC00 ~= first, text[position...].starts(with: "\\u".utf8) {
                position += 2
                guard let second = unit() else { return nil }
                units.append(second)
            }
            return Bytes(String(decoding: units, as: UTF16.self).utf8)
        }

        private mutating func unit() -> UInt16? {
            let digits = text[position...].prefix(4)
            position += digits.count
            // Else a sign would do.
            guard digits.count == 4, digits.allSatisfy({ $0 > UInt8(ascii: "-") }) else {
                return nil
            }
            return UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        }

        mutating func space() {
            while position < text.count, [0x20, 0x0A, 0x0D, 0x09].contains(text[position]) {
                position += 1
            }
        }

        private mutating func take(_ mark: Unicode.Scalar) -> Bool {
            space()
            guard position < text.count, text[position] == UInt8(ascii: mark) else { return false }
            position += 1
            return true
        }
    }
}
