"""Real sentences in many scripts and of many lengths, with which an exported model is checked."""

from __future__ import annotations

# ruff: noqa: RUF001 - ambiguous letters are part of the sample

LONG_TEXT = (
    "The lighthouse keeper climbed the spiral stairs every evening, counting each of the one hundred and eighty-two "
    "steps, and lit the lamp before the first fishing boats turned home. In winter the wind shook the glass and the "
    "sea threw foam against the gallery; in summer tourists came with baskets and asked how far the light could be "
    "seen. Eighteen miles, he would answer, unless there is fog, and then the horn must speak for it. When the lamp "
    "was made electric he stayed on to polish the lens, for a lens does not care where its light comes from. "
) * 2

SAMPLE_TEXTS = (
    "A man is eating food.",
    "What is NVIDIA?",
    "hello",
    "The new movie is awesome, although its ending was a little predictable.",
    "How do I reset the password of my online banking account?",
    "def embed(texts: list[str]) -> np.ndarray: return model.encode(texts)",
    "SELECT name, SUM(amount) FROM invoices WHERE paid_at IS NULL GROUP BY name;",
    "E = mc²; ∫₀^∞ e^(−x²) dx = √π / 2, and 3.14159 is not 22/7.",
    "Die Würde des Menschen ist unantastbar.",
    "Où se trouve la bibliothèque municipale, s'il vous plaît ?",
    "El perro duerme debajo de la mesa de la cocina.",
    "Ninguém sabe ao certo quando a ponte será reaberta ao trânsito.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig.",
    "İstanbul'da ilkbahar yağmurlu geçer.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "মানুষ স্বাধীনভাবে জন্মগ্রহণ করে।",
    "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "人人生而自由,在尊严和权利上一律平等。",
    "吾輩は猫である。名前はまだ無い。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "ყველა ადამიანი იბადება თავისუფალი.",
    "Բոլոր մարդիկ ծնվում են ազատ։",
    "🐶 and 🐱 are pets & animals 👩‍👩‍👧‍👦!",
    "  \ttabs,\nnewlines   and   spaces  ",
    LONG_TEXT,
)
