import RESPWire
import SluiceTesting
import Testing

@Suite("Command decoder")
struct CommandDecoderTests {
    /// Decodes bytes that come in pieces, as a link does.
    static func decode(_ bytes: [UInt8], pieces: [Int], limit: Int = 1_000) throws -> [[[UInt8]]] {
        var decoder = CommandDecoder(argumentBytesMax: limit)
        var commands: [[[UInt8]]] = []
        var buffer: [UInt8] = []
        var skip = 0
        var start = 0
        for end in pieces + [bytes.count] where end > start {
            var piece = Array(bytes[start..<end])
            start = end
            let dropped = min(skip, piece.count)
            piece.removeFirst(dropped)
            skip -= dropped
            buffer += piece
            loop: while !buffer.isEmpty {
                switch try decoder.next(buffer.span) {
                case .command(let length):
                    commands.append(decoder.arguments.map { Array(buffer[$0]) })
                    buffer.removeFirst(length)
                case .incomplete: break loop
                case .skip(let offset, let count):
                    let present = min(count, buffer.count - offset)
                    buffer.removeSubrange(offset..<offset + present)
                    skip = count - present
                    if skip > 0 { break loop }
                }
            }
        }
        return commands
    }

    static let stream: [[[UInt8]]] = [
        ["SELECT", "0"], ["SET", "key", ""], ["incr", "a"],
        ["MSET", "a", "\r\n*3\r\n", "b", String(repeating: "x", count: 200)],
    ].map { $0.map { Array($0.utf8) } }

    @Test("commands are the same however they are cut")
    func fragmentation() throws {
        let bytes = Self.stream.flatMap(RESPEncoder.command)
        for cut in 0...bytes.count {
            #expect(try Self.decode(bytes, pieces: [cut]) == Self.stream, "cut at \(cut)")
        }
        #expect(try Self.decode(bytes, pieces: Array(1..<bytes.count)) == Self.stream)
    }

    @Test("an argument over the limit is taken away, and the rest stays", arguments: 0..<60)
    func oversized(cut: Int) throws {
        let large = [[0x41], [UInt8](repeating: 0x42, count: 30), [0x43]]
        let bytes = RESPEncoder.command(large) + RESPEncoder.command("PING")
        let commands = try Self.decode(bytes, pieces: [min(cut, bytes.count)], limit: 10)
        #expect(commands == [[[0x41], [], [0x43]], [Array("PING".utf8)]])
    }

    @Test("a command has as many arguments as a server takes")
    func manyArguments() throws {
        let count = 1_100_000
        let words = [Array("DEL".utf8)] + [[UInt8]](repeating: [0x6B], count: count)
        let bytes = RESPEncoder.command(words)
        let commands = try Self.decode(bytes, pieces: [bytes.count / 2])
        #expect(commands.map(\.count) == [count + 1])
    }

    @Test("line feeds between commands count as bytes and are no commands")
    func keepAlive() throws {
        let bytes = [0x0A, 0x0A] + RESPEncoder.command("PING") + [0x0A]
        let commands = try Self.decode(bytes, pieces: [])
        #expect(commands == [[], [], [Array("PING".utf8)], []])
    }

    @Test(
        "malformed bytes are an error that says where",
        arguments: ["+OK\r\n", "*x\r\n", "*1\r\n:5\r\n", "*1\r\n$-2\r\n", "*1\r\n$1\r\nab\r\n"])
    func malformed(text: String) {
        #expect(throws: RESPError.self) {
            _ = try Self.decode(Array(text.utf8), pieces: [])
        }
    }

    @Test(
        "random bytes are an error or not enough, and never more",
        arguments: 0..<200 as Range<UInt64>)
    func fuzz(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let alphabet = Array("*$:+-\r\n0123456789abc".utf8)
        let bytes = (0..<300).map { _ in alphabet[random.pick(0..<alphabet.count)] }
        _ = try? Self.decode(bytes, pieces: [])
        let reply = try? RESPDecoder.decode(bytes.span)
        var scanner = RESPScanner()
        if let reply { #expect((try? scanner.length(bytes.span)) == reply.length) }
    }

    @Test("replies of both protocols are read")
    func replies() throws {
        let cases: [(String, RESPValue)] = [
            ("+OK\r\n", .simple("OK")), ("-ERR x\r\n", .error("ERR x")), (":-5\r\n", .integer(-5)),
            ("$2\r\nab\r\n", .bulk([0x61, 0x62])), ("$-1\r\n", .null), ("_\r\n", .null),
            ("*2\r\n:1\r\n*1\r\n$0\r\n\r\n", .array([.integer(1), .array([.bulk([])])])),
            ("%1\r\n+a\r\n:1\r\n", .array([.simple("a"), .integer(1)])),
            (",1.5\r\n", .simple("1.5")), ("#t\r\n", .integer(1)), ("*-1\r\n", .null),
            ("*0\r\n", .array([])), (">1\r\n+a\r\n", .push([.simple("a")])),
            ("|1\r\n+a\r\n:1\r\n*1\r\n$1\r\nb\r\n", .array([.bulk([0x62])])),
            ("!5\r\nERR x\r\n", .error("ERR x")), ("=5\r\ntxt:b\r\n", .bulk([0x62])),
        ]
        for (text, expected) in cases {
            let bytes = Array(text.utf8)
            let reply = try RESPDecoder.decode(bytes.span)
            #expect(reply?.value == expected)
            #expect(reply?.length == bytes.count)
            var scanner = RESPScanner()
            for cut in 0..<bytes.count {
                let part = Array(bytes.prefix(cut))
                let partial = try RESPDecoder.decode(part.span)
                #expect(partial == nil, "\(text) cut at \(cut)")
                #expect(try scanner.length(part.span) == nil, "\(text) cut at \(cut)")
            }
            #expect(try scanner.length((bytes + [0x2B]).span) == bytes.count)
        }
    }
}
