//! The little statistics that experiments need: tails of two distributions, and two samples beside
//! each other.

use super::definition::Worse;

/// How likely chi-square with so many degrees of freedom is at least `x`, when only chance is at work.
pub(crate) fn chi_square_tail(x: f64, degrees: u32) -> f64 {
    if degrees == 0 || x <= 0.0 {
        return 1.0;
    }
    gamma_tail(f64::from(degrees) / 2.0, x / 2.0)
}

/// How likely a standard normal number is at least `z`.
pub(crate) fn normal_tail(z: f64) -> f64 {
    let tail = 0.5 * gamma_tail(0.5, z * z / 2.0);
    if z < 0.0 { 1.0 - tail } else { tail }
}

/// The regularized upper incomplete gamma function Q(a, x): by its series where that converges fast,
/// and by its continued fraction elsewhere.
fn gamma_tail(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        (1.0 - scale * series(a, x)).clamp(0.0, 1.0)
    } else {
        (scale * fraction(a, x)).clamp(0.0, 1.0)
    }
}

/// More rounds than either needs for the degrees of freedom that experiments have.
const ROUNDS: u32 = 500;
const PRECISION: f64 = 1e-15;

fn series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for n in 1..ROUNDS {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * PRECISION {
            break;
        }
    }
    sum
}

/// By Lentz's method.
fn fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut h = d;
    for n in 1..ROUNDS {
        let n = f64::from(n);
        let numerator = -n * (n - a);
        b += 2.0;
        d = 1.0 / (numerator * d + b);
        c = b + numerator / c;
        h *= d * c;
        if (d * c - 1.0).abs() < PRECISION {
            break;
        }
    }
    h
}

/// The logarithm of the gamma function, for positive numbers: Lanczos' approximation.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let reflected = (std::f64::consts::PI * x).sin();
        return (std::f64::consts::PI / reflected).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let terms = COEFFICIENTS.iter().zip(1..);
    let sum: f64 = terms.map(|(c, at)| c / (x + f64::from(at))).sum();
    let t = x + G + 0.5;
    let half_ln_two_pi = 0.5 * std::f64::consts::TAU.ln();
    half_ln_two_pi + (x + 0.5) * t.ln() - t + (0.999_999_999_999_809_9 + sum).ln()
}

/// Numbers of people: how many, their sum, and the sum of their squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) people: u64,
    pub(crate) sum: f64,
    pub(crate) squares: f64,
}

/// 95 % of a normal distribution are within so many standard deviations.
const NINETY_FIVE: f64 = 1.959_963_984_540_054;

impl Sample {
    /// The mean; 0 of nobody.
    pub(crate) fn mean(&self) -> f64 {
        if self.people == 0 {
            return 0.0;
        }
        self.sum / self.people as f64
    }

    /// The square of the mean's standard error; 0 while it can't be told.
    fn error_squared(&self) -> f64 {
        if self.people < 2 {
            return 0.0;
        }
        let people = self.people as f64;
        let spread = (self.squares - self.sum * self.sum / people) / (people - 1.0);
        spread.max(0.0) / people
    }

    /// The mean's 95 % confidence interval.
    pub(crate) fn interval(&self) -> (f64, f64) {
        let reach = NINETY_FIVE * self.error_squared().sqrt();
        (self.mean() - reach, self.mean() + reach)
    }
}

/// An arm beside the control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// By how much the arm's mean is worse; negative when it is better.
    pub(crate) worse_by: f64,
    /// How likely chance alone makes it as bad.
    pub(crate) p: f64,
}

/// Compares an arm with the control: one-sided, by the normal distribution, which is what many people
/// make of any.
pub(crate) fn compare(arm: &Sample, control: &Sample, worse: Worse) -> Comparison {
    let difference = arm.mean() - control.mean();
    let worse_by = match worse {
        Worse::Higher => difference,
        Worse::Lower => -difference,
    };
    let error = (arm.error_squared() + control.error_squared()).sqrt();
    let p = match (error > 0.0, worse_by > 0.0) {
        (true, _) => normal_tail(worse_by / error),
        (false, true) => 0.0,
        (false, false) => 1.0,
    };
    Comparison { worse_by, p }
}

/// How likely chance alone makes counts as far from their shares; `None` while there are too few for
/// a chi-square, which wants five expected of each.
pub(crate) fn ratio(counts: &[(u64, u16)]) -> Option<f64> {
    let shares: Vec<&(u64, u16)> = counts.iter().filter(|(_, share)| *share > 0).collect();
    let people: u64 = shares.iter().map(|(count, _)| count).sum();
    let all: u32 = shares.iter().map(|(_, share)| u32::from(*share)).sum();
    let expected = |share: u16| people as f64 * f64::from(share) / f64::from(all);
    if shares.len() < 2 || shares.iter().any(|(_, share)| expected(*share) < 5.0) {
        return None;
    }
    let chi: f64 = shares
        .iter()
        .map(|(count, share)| (*count as f64 - expected(*share)).powi(2) / expected(*share))
        .sum();
    Some(chi_square_tail(chi, shares.len() as u32 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_the_printed_tables() {
        // Critical values of chi-square, as every textbook prints them, to three decimals.
        for (degrees, x, tail) in [
            (1, 3.841, 0.05),
            (1, 6.635, 0.01),
            (1, 10.828, 0.001),
            (2, 5.991, 0.05),
            (2, 13.816, 0.001),
            (5, 11.070, 0.05),
            (10, 18.307, 0.05),
            (10, 29.588, 0.001),
            (30, 43.773, 0.05),
            (100, 124.342, 0.05),
            (10, 3.940, 0.95),
        ] {
            let found = chi_square_tail(x, degrees);
            assert!((found / tail - 1.0).abs() < 1e-3, "{degrees} {x}: {found}");
        }
        for (z, tail) in [
            (0.0, 0.5),
            (1.0, 0.158_655_3),
            (1.644_854, 0.05),
            (1.959_964, 0.025),
            (2.326_348, 0.01),
            (3.090_232, 0.001),
            (6.0, 9.865_876e-10),
            (-1.0, 0.841_344_7),
        ] {
            let found = normal_tail(z);
            assert!((found / tail - 1.0).abs() < 1e-5, "{z}: {found}");
        }
        assert_eq!([chi_square_tail(0.0, 3), chi_square_tail(9.0, 0)], [1.0; 2]);
        assert!(chi_square_tail(1e9, 1) < 1e-300);
    }

    #[test]
    fn the_gamma_function_is_a_factorial() {
        let factorial = |n: u32| (1..n).map(f64::from).product::<f64>();
        for n in 1..20 {
            let found = ln_gamma(f64::from(n)).exp();
            assert!((found / factorial(n) - 1.0).abs() < 1e-12, "{n}: {found}");
        }
        let root_of_pi = std::f64::consts::PI.sqrt();
        assert!((ln_gamma(0.5).exp() - root_of_pi).abs() < 1e-12);
    }

    /// `yes` of `people` people.
    fn share(yes: u64, people: u64) -> Sample {
        let yes = yes as f64;
        Sample {
            people,
            sum: yes,
            squares: yes,
        }
    }

    #[test]
    fn arms_are_compared_with_the_control() {
        let control = share(20, 1000);
        let worse = compare(&share(60, 1000), &control, Worse::Higher);
        assert!((worse.worse_by - 0.04).abs() < 1e-12);
        // By hand: z = 0.04 / sqrt(0.02*0.98/999 + 0.06*0.94/999) = 4.585.
        assert!((worse.p / 2.27e-6 - 1.0).abs() < 0.05, "{}", worse.p);
        let better = compare(&share(5, 1000), &control, Worse::Higher);
        assert!(better.worse_by < 0.0 && better.p > 0.99);
        assert!(compare(&share(5, 1000), &control, Worse::Lower).p < 0.01);
        assert_eq!(compare(&share(0, 9), &share(0, 9), Worse::Higher).p, 1.0);
        assert_eq!(compare(&share(9, 9), &share(0, 9), Worse::Higher).p, 0.0);
        assert_eq!(compare(&share(0, 0), &share(0, 0), Worse::Higher).p, 1.0);
    }

    #[test]
    fn an_interval_is_as_wide_as_its_numbers_are_few() {
        let (low, high) = share(50, 100).interval();
        assert!(
            (low - 0.401_5).abs() < 1e-3 && (high - 0.598_5).abs() < 1e-3,
            "{low} {high}"
        );
        assert_eq!(share(1, 1).interval(), (1.0, 1.0));
        assert_eq!(share(0, 0).interval(), (0.0, 0.0));
    }

    #[test]
    fn counts_are_compared_with_their_shares() {
        assert!(ratio(&[(9500, 9500), (500, 500)]).unwrap() > 0.999);
        assert!(ratio(&[(9500, 9500), (400, 500)]).unwrap() < 1e-4);
        assert!(ratio(&[(510, 5000), (490, 5000)]).unwrap() > 0.5);
        assert_eq!(ratio(&[(50, 9500), (2, 500)]), None, "too few");
        assert_eq!(ratio(&[(50, 10_000), (2, 0)]), None, "one arm");
        assert_eq!(ratio(&[]), None);
    }
}
