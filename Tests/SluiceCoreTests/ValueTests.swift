import SluiceCore
import Testing

@Suite("Values")
struct ValueTests {
    @Test(
        "integers are read as Redis reads them",
        arguments: [
            ("0", 0), ("-1", -1), ("9223372036854775807", .max), ("-9223372036854775808", .min),
            ("9223372036854775808", nil), ("01", nil), ("-0", nil), ("+1", nil), ("", nil),
            ("1 ", nil), ("-", nil),
        ] as [(String, Int64?)])
    func integers(text: String, expected: Int64?) {
        #expect(Number.integer(Array(text.utf8).span) == expected)
    }

    @Test(
        "doubles are read as Redis reads them",
        arguments: [
            ("1.5", 1.5), ("inf", .infinity), ("-inf", -.infinity), ("1e3", 1_000), ("nan", nil),
            ("", nil), (" 1", nil), ("1x", nil), ("0.1", 0.1),
        ] as [(String, Double?)])
    func reals(text: String, expected: Double?) {
        #expect(Number.real(Array(text.utf8).span) == expected)
    }

    @Test(
        "timestamps are seconds, milliseconds or ISO 8601",
        arguments: [
            ("1700000000", "2023-11-14 22:13:20.000"), ("1700000000123", "2023-11-14 22:13:20.123"),
            ("1700000000.5", "2023-11-14 22:13:20.500"), ("2024-02-29", "2024-02-29 00:00:00.000"),
            ("2024-02-29T23:59:58.25Z", "2024-02-29 23:59:58.250"),
            ("2024-01-01 01:00:00+01:00", "2024-01-01 00:00:00.000"),
            ("1969-12-31T23:59:59Z", "1969-12-31 23:59:59.000"), ("yesterday", nil),
            ("2024-13-01", nil), ("2024-01-01T25:00", nil),
        ] as [(String, String?)])
    func timestamps(text: String, expected: String?) {
        let micros = Timestamp.microseconds(Array(text.utf8).span)
        #expect(micros.map { Timestamp.text(microseconds: $0) } == expected)
    }

    @Test(
        "what does not fit a column is refused, and nothing is appended",
        arguments: [
            (ColumnType.integer, "word"), (.integer, "1.5"), (.real, "word"), (.boolean, "maybe"),
            (.json, "{"), (.json, "[1,]"), (.json, "\"\\u0000\""), (.decimal, "1.2.3"),
            (.timestamp, "soon"), (.text, "a\0b"),
        ])
    func misfits(type: ColumnType, text: String) {
        var column = ColumnVector(type)
        #expect(throws: Misfit.self) { try column.append(text: Array(text.utf8).span) }
        #expect(column.count == 0)
        #expect(column.blob.isEmpty)
    }

    @Test(
        "what fits is taken",
        arguments: [
            (ColumnType.json, "{\"a\":[1,-2.5e3,true,null,\"\\u00e9\"]}"), (.boolean, "Yes"),
            (.decimal, "-12345678901234567890.123"), (.text, "héllo 🎈"), (.real, "inf"),
        ])
    func fits(type: ColumnType, text: String) throws {
        var column = ColumnVector(type)
        try column.append(text: Array(text.utf8).span)
        #expect(column.count == 1)
    }

    @Test("bytes that are no UTF-8 fit only a column of bytes")
    func utf8() throws {
        for bytes: [UInt8] in [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE2, 0x82]] {
            var text = ColumnVector(.text)
            #expect(throws: Misfit.self) { try text.append(text: bytes.span) }
            var raw = ColumnVector(.bytes)
            try raw.append(text: bytes.span)
            #expect(Array(raw.bytes(0)) == bytes)
        }
    }
}

@Suite("Key patterns")
struct KeyPatternTests {
    static func pattern(_ text: String) -> KeyPattern {
        var segments: [KeyPattern.Segment] = []
        var rest = text[...]
        while let open = rest.firstIndex(of: "<"), let close = rest.firstIndex(of: ">") {
            if open > rest.startIndex { segments.append(.literal(Array(rest[..<open].utf8))) }
            let name = String(rest[rest.index(after: open)..<close])
            segments.append(.placeholder(Column(name: name, type: .text)))
            rest = rest[rest.index(after: close)...]
        }
        if !rest.isEmpty { segments.append(.literal(Array(rest.utf8))) }
        return KeyPattern(segments: segments)
    }

    @Test(
        "placeholders take bytes up to the next literal, the last one the rest",
        arguments: [
            ("views:<p>", "views:a:b", ["a:b"]), ("views:<p>", "views:", nil),
            ("<a>:<b>", "x:y:z", ["x", "y:z"]), ("<a>:<b>", "x:", nil),
            ("u:<a>:cart", "u:7:cart", ["7"]), ("u:<a>:cart", "u:cart:cart:cart", ["cart:cart"]),
            ("u:<a>:cart", "u:7:cartx", nil), ("<k>", "anything", ["anything"]),
        ] as [(String, String, [String]?)])
    func split(text: String, key: String, expected: [String]?) {
        let pattern = Self.pattern(text)
        let bytes = Array(key.utf8)
        let parts = pattern.split(bytes.span)?.map { String(decoding: bytes[$0], as: UTF8.self) }
        #expect(parts == expected)
        #expect(pattern.matches(bytes.span) == (expected != nil))
        if let parts { #expect(pattern.key(from: parts.map { Array($0.utf8) }) == bytes) }
    }

    @Test(
        "patterns overlap when some key matches both",
        arguments: [
            ("a:<x>", "b:<x>", false), ("a:<x>", "a:<y>", true), ("a:<x>", "a:b:<y>", true),
            ("<x>:1", "2:<y>", true), ("a:<x>:c", "a:<x>:d", false), ("ab<x>", "a<x>", true),
            ("<k>", "a:<x>", true),
        ])
    func overlaps(left: String, right: String, expected: Bool) {
        #expect(Self.pattern(left).overlaps(Self.pattern(right)) == expected)
        #expect(Self.pattern(right).overlaps(Self.pattern(left)) == expected)
    }
}
