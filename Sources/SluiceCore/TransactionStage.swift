/// Holds the commands of a MULTI until its EXEC, so that what was processed always ends at a
/// boundary: a link that is lost in the middle leaves no half of a transaction behind.
struct TransactionStage {
    private(set) var bytes: Bytes = []
    private var ranges: [Range<Int>] = []
    private var commands: [(ranges: Range<Int>, isOversized: Bool)] = []
    private(set) var isOpen = false

    var count: Int { commands.count }

    mutating func open() {
        reset()
        isOpen = true
    }

    mutating func append(
        _ command: borrowing Span<UInt8>, _ arguments: [Range<Int>], isOversized: Bool,
    ) {
        let first = ranges.count
        for argument in arguments {
            let start = bytes.count
            let part = command.extracting(argument)
            unsafe part.withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0) }
            ranges.append(start..<bytes.count)
        }
        commands.append((first..<ranges.count, isOversized))
    }

    func command(_ index: Int) -> (arguments: [Range<Int>], isOversized: Bool) {
        (Array(ranges[commands[index].ranges]), commands[index].isOversized)
    }

    mutating func reset() {
        isOpen = false
        bytes.removeAll(keepingCapacity: bytes.capacity < 1 << 20)
        ranges.removeAll(keepingCapacity: true)
        commands.removeAll(keepingCapacity: true)
    }
}
