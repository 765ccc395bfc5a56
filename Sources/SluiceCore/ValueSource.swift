#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// What a column takes of a value that fills several columns.
public enum ValueSource: Hashable, Sendable {
    /// A place in a JSON document.
    case path(JSONPath)
    /// The score of a member.
    case score
    /// The longitude in degrees, of a member that GEOADD put.
    case longitude
    /// The latitude in degrees, of a member that GEOADD put.
    case latitude
    /// A HyperLogLog as Redis keeps it.
    case sketch
    /// How many elements a HyperLogLog has counted.
    case count
}

extension ValueSource {
    /// What columns take of a value.
    ///
    /// - Parameters:
    ///   - cell: The value as the buffer holds it.
    ///   - sources: What each column takes, in the columns' order.
    ///   - columns: The columns.
    /// - Throws: ``Misfit`` if the value is no such document, place or sketch.
    static func cells(
        of cell: Cell, _ sources: [ValueSource], _ columns: ArraySlice<Column>,
    ) throws(Misfit) -> [Cell] {
        switch cell {
        case .unchanged, .null: return sources.map { _ in cell }
        case .bytes(let bytes):
            if case .path? = sources.first {
                guard JSONText.isDocument(bytes.span) else {
                    throw Misfit(.type, "expected a JSON document")
                }
            }
            var cells: [Cell] = []
            for (source, column) in zip(sources, columns) {
                cells.append(try source.cell(of: bytes, column))
            }
            return cells
        case .real(let score):
            var cells: [Cell] = []
            for source in sources { cells.append(try source.cell(ofScore: score)) }
            return cells
        case .integer, .add, .addReal, .fields:
            preconditionFailure("a value that fills several columns is text or a score")
        }
    }

    private func cell(of bytes: Bytes, _ column: Column) throws(Misfit) -> Cell {
        switch self {
        case .path(let path):
            return path.value(in: bytes.span, isJSON: column.type == .json).map(Cell.bytes) ?? .null
        case .sketch, .count:
            guard let count = HyperLogLog.count(bytes.span) else {
                throw Misfit(.type, "expected a HyperLogLog, as PFADD makes it")
            }
            return self == .count ? .integer(count) : .bytes(bytes)
        case .score, .longitude, .latitude: throw Misfit(.type, "expected a score")
        }
    }

    private func cell(ofScore score: Double) throws(Misfit) -> Cell {
        guard self != .score else { return .real(score) }
        guard let place = GeoPlace(score: score) else {
            throw Misfit(.type, "expected a place, as GEOADD makes it")
        }
        return .real(self == .longitude ? place.longitude : place.latitude)
    }
}

/// A place on Earth as sorted sets hold it: a score of 52 bits, those of longitude and latitude in
/// turn.
///
/// Source: https://redis.io/docs/latest/commands/geoadd/, whose limits of the latitude are those of
/// EPSG:3857.
package struct GeoPlace: Hashable {
    package let longitude: Double
    package let latitude: Double

    /// Creates a place, or nil when the score is none.
    package init?(score: Double) {
        guard score >= 0, score < 4_503_599_627_370_496, score == score.rounded() else {
            return nil
        }
        let bits = UInt64(score)
        latitude = Self.middle(Self.everySecondBit(bits), limit: 85.05112878)
        longitude = Self.middle(Self.everySecondBit(bits >> 1), limit: 180)
    }

    private static func everySecondBit(_ bits: UInt64) -> Double {
        var value: UInt64 = 0
        for index in 0..<26 { value |= (bits >> UInt64(2 * index) & 1) << UInt64(index) }
        return Double(value)
    }

    // The middle of the cell that the bits name.
    private static func middle(_ cell: Double, limit: Double) -> Double {
        let cells = Double(1 << 26)
        let low = -limit + cell / cells * (limit - -limit)
        let high = -limit + (cell + 1) / cells * (limit - -limit)
        return min(limit, max(-limit, (low + high) / 2))
    }
}

/// Counts with a HyperLogLog as Redis keeps it: a header of 16 bytes, then 16,384 registers of 6 bits,
/// dense or as runs.
///
/// Source: Otmar Ertl, New cardinality estimation algorithms for HyperLogLog sketches (2017), which
/// Redis follows since 5.0.
package enum HyperLogLog {
    private static let registers = 16_384
    private static let headerBytes = 16
    private static let rankMax = 50

    /// How many elements were counted, as PFCOUNT says; nil when the bytes are no HyperLogLog.
    package static func count(_ bytes: borrowing Span<UInt8>) -> Int64? {
        guard bytes.count >= headerBytes, bytes.hasPrefix(Array("HYLL".utf8)),
            let histogram = bytes[4] == 0 ? dense(bytes) : bytes[4] == 1 ? sparse(bytes) : nil
        else { return nil }
        let m = Double(registers)
        var z = m * tau((m - Double(histogram[rankMax + 1])) / m)
        for rank in stride(from: rankMax, through: 1, by: -1) {
            z = (z + Double(histogram[rank])) * 0.5
        }
        z += m * sigma(Double(histogram[0]) / m)
        // Bytes that no server writes may mean any number.
        return Int64(exactly: (0.5 / log(2) * m * m / z).rounded())
    }

    private static func dense(_ bytes: borrowing Span<UInt8>) -> [Int]? {
        guard bytes.count >= headerBytes + registers * 6 / 8 else { return nil }
        var histogram = [Int](repeating: 0, count: 64)
        for register in 0..<registers {
            let bit = register * 6
            let index = headerBytes + bit / 8
            let high = index + 1 < bytes.count ? UInt16(bytes[index + 1]) : 0
            let word = UInt16(bytes[index]) | high << 8
            histogram[Int(word >> UInt16(bit % 8) & 63)] += 1
        }
        return histogram
    }

    private static func sparse(_ bytes: borrowing Span<UInt8>) -> [Int]? {
        var histogram = [Int](repeating: 0, count: 64)
        var index = headerBytes
        var total = 0
        while index < bytes.count {
            let code = bytes[index]
            var (run, rank) = (Int(code & 0x3F) + 1, 0)
            if code & 0x80 != 0 {
                (run, rank) = (Int(code & 3) + 1, Int(code >> 2 & 31) + 1)
            } else if code & 0x40 != 0 {
                index += 1
                guard index < bytes.count else { return nil }
                run = (Int(code & 0x3F) << 8 | Int(bytes[index])) + 1
            }
            histogram[rank] += run
            total += run
            index += 1
        }
        return total == registers ? histogram : nil
    }

    private static func tau(_ start: Double) -> Double {
        guard start > 0, start < 1 else { return 0 }
        var (x, y, z) = (start, 1.0, 1 - start)
        while true {
            x = x.squareRoot()
            let before = z
            y *= 0.5
            z -= (1 - x) * (1 - x) * y
            if z == before { return z / 3 }
        }
    }

    private static func sigma(_ start: Double) -> Double {
        guard start < 1 else { return .infinity }
        var (x, y, z) = (start, 1.0, start)
        while true {
            x *= x
            let before = z
            z += x * y
            y += y
            if z == before { return z }
        }
    }
}
