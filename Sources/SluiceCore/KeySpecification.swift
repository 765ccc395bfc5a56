/// Where a command has keys, as the server's COMMAND says.
///
/// Source: the "Command key specifications" page of the Redis documentation.
public struct KeySpecification: Hashable, Sendable {
    /// Where the keys begin.
    public enum Begin: Hashable, Sendable {
        /// At an argument.
        case index(Int)
        /// After a word, looked for from an argument on, or backwards from the end if negative.
        case keyword(Bytes, from: Int)
        /// Nobody says.
        case unknown
    }

    /// How the keys go on.
    public enum Find: Hashable, Sendable {
        /// Up to an argument counted from the first key (negative: from the end), at a step; with a
        /// limit of n, up to 1/n of the arguments that remain.
        case range(last: Int, step: Int, limit: Int)
        /// As many as an argument says.
        case count(at: Int, first: Int, step: Int)
        /// Nobody says.
        case unknown
    }

    /// Where the keys begin.
    public let begin: Begin
    /// How they go on.
    public let find: Find
    /// Whether the command may change them.
    public let isWrite: Bool
    /// Whether the command replaces what they had, whatever that was.
    public let isOverwrite: Bool
    /// Whether there may be keys that this does not name.
    public let isIncomplete: Bool

    /// Creates a specification.
    public init(
        begin: Begin, find: Find, isWrite: Bool, isOverwrite: Bool = false, isIncomplete: Bool,
    ) {
        self.begin = begin
        self.find = find
        self.isWrite = isWrite
        self.isOverwrite = isOverwrite
        self.isIncomplete = isIncomplete
    }

    /// The indices of the keys in a command, or nil when it can't be said.
    func keys(_ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>]) -> [Int]? {
        guard let start = start(bytes, arguments) else {
            if case .keyword = begin { return [] }
            return nil
        }
        switch find {
        case .unknown:
            return nil
        case .range(let last, let step, let limit):
            var end = last >= 0 ? start + last : arguments.count + last
            if last == -1, limit > 1 {
                end = start + (arguments.count - start) / limit - 1
            }
            guard step > 0, end < arguments.count, start <= end else { return [] }
            return Array(stride(from: start, through: end, by: step))
        case .count(let at, let first, let step):
            guard start + at < arguments.count, step > 0,
                let count = Number.integer(bytes.extracting(arguments[start + at])), count >= 0,
                count <= arguments.count
            else { return nil }
            let keys = (0..<Int(count)).map { start + first + $0 * step }
            return keys.allSatisfy { $0 < arguments.count } ? keys : nil
        }
    }

    private func start(_ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>]) -> Int? {
        switch begin {
        case .unknown: return nil
        case .index(let index): return index < arguments.count ? index : nil
        case .keyword(let word, let from):
            let isBackward = from < 0
            var index = isBackward ? arguments.count + from : from
            while index > 0, index < arguments.count {
                if Self.isSame(word, bytes.extracting(arguments[index])) {
                    return index + 1 < arguments.count ? index + 1 : nil
                }
                index += isBackward ? -1 : 1
            }
            return nil
        }
    }

    private static func isSame(_ word: Bytes, _ argument: borrowing Span<UInt8>) -> Bool {
        guard word.count == argument.count else { return false }
        return word.indices.allSatisfy {
            word[$0].lowercasedASCII == argument[$0].lowercasedASCII
        }
    }
}

/// What a server says of one of its commands.
public struct CommandDescription: Hashable, Sendable {
    /// The name in lower case.
    public let name: Bytes
    /// Whether it may write.
    public let isWrite: Bool
    /// What each key that it writes is afterwards, unless it is gone; nil when nobody says.
    public let type: RedisType?
    /// Its keys.
    public let keys: [KeySpecification]

    /// Creates a description.
    public init(name: Bytes, isWrite: Bool, type: RedisType? = nil, keys: [KeySpecification]) {
        self.name = name
        self.isWrite = isWrite
        self.type = type
        self.keys = keys
    }

    /// The keys of a command that it may change, by the index of the argument, or nil when it can't be
    /// said.
    func written(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>],
    ) -> [Int: Write]? {
        // PFCOUNT changes the count that a HyperLogLog keeps, and is no writing command.
        guard isWrite || keys.contains(where: \.isWrite) else { return [:] }
        var written: [Int: Write] = [:]
        var named = 0
        for specification in keys where specification.isWrite {
            guard !specification.isIncomplete, let found = specification.keys(bytes, arguments)
            else { return nil }
            if case .keyword = specification.begin, !found.isEmpty { named += 1 }
            for index in found where written[index] != .overwritten {
                written[index] =
                    specification.isOverwrite
                    ? .overwritten : found.count == 1 ? .changed : .oneOfSeveral
            }
        }
        // Of options that say where to store, the last one counts, and a key may have the name of one.
        return named > 1 ? written.mapValues { _ in .oneOfSeveral } : written
    }

    /// What a command does to a key.
    enum Write {
        /// It was of the command's type before, and is so afterwards or gone.
        case changed
        /// It is of the command's type afterwards, or gone.
        case overwritten
        /// It may not have been touched.
        case oneOfSeveral
    }
}
