/// Reads points in time.
package enum Timestamp {
    /// Numbers below this are seconds since 1970, others milliseconds: it is the year 5138 as
    /// seconds, and 1973 as milliseconds.
    static let secondsMax: Double = 100_000_000_000

    /// Reads seconds or milliseconds since 1970, or ISO 8601.
    ///
    /// Taken are `2026-01-31`, `2026-01-31T23:59`, `2026-01-31 23:59:58.25`, each with or without
    /// `Z`, `+01:00` or `-0130` after a time; without an offset the time is UTC.
    ///
    /// - Returns: Microseconds since 1970, or nil.
    package static func microseconds(_ text: borrowing Span<UInt8>) -> Int64? {
        guard let time = read(text), range.contains(time) else { return nil }
        return time
    }

    /// The years that every database takes, 1 to 9999, as microseconds since 1970.
    private static let range: ClosedRange<Int64> =
        -62_135_596_800_000_000...253_402_300_799_999_000

    /// A deadline in milliseconds since 1970 as microseconds; one beyond all years is the last of them.
    package static func deadline(milliseconds: Int64) -> Int64 {
        let (time, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000)
        if overflow { return milliseconds < 0 ? range.lowerBound : range.upperBound }
        return min(max(time, range.lowerBound), range.upperBound)
    }

    private static func read(_ text: borrowing Span<UInt8>) -> Int64? {
        if let integer = Number.integer(text) { return fromNumber(integer) }
        if let seconds = Number.real(text), seconds.magnitude < secondsMax {
            return Int64((seconds * 1_000_000).rounded())
        }
        var scanner = Scanner()
        return scanner.read(text)
    }

    /// Writes a time as SQLite's own functions do: `2026-01-31 23:59:58.250`, in UTC.
    package static func text(microseconds: Int64) -> String {
        let day: Int64 = 86_400_000_000
        let rest = ((microseconds % day) + day) % day
        let (year, month, date) = civil(days: (microseconds - rest) / day)
        let milliseconds = rest / 1_000
        func digits(_ number: Int64, _ count: Int) -> String {
            let text = "\(number)"
            return String(repeating: "0", count: max(0, count - text.count)) + text
        }
        let clock = [
            digits(milliseconds / 3_600_000, 2), digits(milliseconds / 60_000 % 60, 2),
            digits(milliseconds / 1_000 % 60, 2),
        ].joined(separator: ":")
        return "\(digits(year, 4))-\(digits(month, 2))-\(digits(date, 2)) \(clock)."
            + digits(milliseconds % 1_000, 3)
    }

    // The inverse of `days(year:month:day:)`, from the same source.
    private static func civil(days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra =
            (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return (year, month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }

    private static func fromNumber(_ number: Int64) -> Int64? {
        let isSeconds = Double(number).magnitude < secondsMax
        let (value, overflow) = number.multipliedReportingOverflow(
            by: isSeconds ? 1_000_000 : 1_000
        )
        return overflow ? nil : value
    }

    private struct Scanner {
        private var position = 0

        mutating func read(_ text: borrowing Span<UInt8>) -> Int64? {
            guard let year = digits(4, text), take("-", text), let month = digits(2, text),
                take("-", text), let day = digits(2, text), (1...12).contains(month),
                (1...31).contains(day)
            else { return nil }
            var micros = Timestamp.days(year: year, month: month, day: day) * 86_400_000_000
            if position == text.count { return micros }
            guard take("T", text) || take(" ", text) || take("t", text),
                let time = time(text), let offset = offset(text), position == text.count
            else { return nil }
            micros += time - offset
            return micros
        }

        private mutating func time(_ text: borrowing Span<UInt8>) -> Int64? {
            guard let hour = digits(2, text), take(":", text), let minute = digits(2, text),
                hour < 24, minute < 60
            else { return nil }
            var micros = (hour * 60 + minute) * 60_000_000
            guard take(":", text) else { return micros }
            guard let second = digits(2, text), second < 60 else { return nil }
            micros += second * 1_000_000
            guard take(".", text) else { return micros }
            var unit: Int64 = 100_000
            let start = position
            while position < text.count, let digit = digits(1, text) {
                micros += digit * unit
                unit /= 10
            }
            return position > start ? micros : nil
        }

        private mutating func offset(_ text: borrowing Span<UInt8>) -> Int64? {
            if position == text.count || take("Z", text) || take("z", text) { return 0 }
            let isBehind = take("-", text)
            guard isBehind || take("+", text), let hours = digits(2, text) else { return nil }
            _ = take(":", text)
            let minutes = position < text.count ? digits(2, text) : 0
            guard let minutes else { return nil }
            let offset = (hours * 60 + minutes) * 60_000_000
            return isBehind ? -offset : offset
        }

        private mutating func digits(_ count: Int, _ text: borrowing Span<UInt8>) -> Int64? {
            guard position + count <= text.count else { return nil }
            var value: Int64 = 0
            for index in position..<position + count {
                let digit = text[index] &- UInt8(ascii: "0")
                guard digit <= 9 else { return nil }
                value = value * 10 + Int64(digit)
            }
            position += count
            return value
        }

        private mutating func take(_ character: Unicode.Scalar, _ text: borrowing Span<UInt8>)
            -> Bool
        {
            guard position < text.count, UInt32(text[position]) == character.value else {
                return false
            }
            position += 1
            return true
        }
    }

    // Howard Hinnant's `days_from_civil`, https://howardhinnant.github.io/date_algorithms.html.
    private static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        let year = month <= 2 ? year - 1 : year
        let era = (year >= 0 ? year : year - 399) / 400
        let yearOfEra = year - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
            - 719_468
    }
}
