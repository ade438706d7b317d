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

PAIRS = (
    ("How long does a boiled egg need?", "Eggs are hard after nine minutes in boiling water."),
    ("Which trains go to the airport?", "Every twenty minutes, line S8 connects the main station with the airport."),
    ("My parcel has not arrived.", "The delivery that I ordered two weeks ago is still missing."),
    ("How do I cancel my subscription?", "Members can end their contract under 'Account', with a month's notice."),
    ("The cat is asleep on the windowsill.", "A kitten naps in the sun beside the window."),
    ("What causes the tides?", "The gravity of the moon raises the water of the oceans twice a day."),
    ("The company's profit fell by a tenth.", "Earnings went down 10% against the year before."),
    ("Can I return shoes that I have worn?", "Footwear is taken back only if its soles show no signs of use."),
    (
        "She has played the violin since she was five.",
        "Her first music lessons, as a small child, were on a string instrument.",
    ),
    ("Bake the bread at 230 degrees.", "The loaf needs a very hot oven for the first quarter of an hour."),
    ("How is a vaccine tested?", "Three phases of clinical trials show whether an immunisation is safe and effective."),
    ("The bridge is closed for repairs.", "Until spring, cars cannot cross the river here because of construction."),
    ("Is tap water safe to drink in Lisbon?", "The city's water is checked daily, and can be drunk from every tap."),
    ("The printer shows error 0x61.", "A code beginning with 0x6 means that the ink system has failed."),
    ("How tall is the tower?", "Its top platform is 276 metres above the ground."),
    ("He forgot his umbrella on the bus.", "Somebody left a black umbrella on a seat of line 14."),
    (
        "What is the capital gains tax on shares?",
        "Profits from the sale of stocks are taxed at a flat rate of a quarter.",
    ),
    ("The museum is free on Sundays.", "No ticket is needed for the exhibition at the end of the week."),
    ("Sort a list in Python.", "items.sort(key=lambda item: item.name) orders the elements in place."),
    ("Why do leaves turn red?", "In autumn, chlorophyll breaks down and other pigments become visible."),
    ("Two teenagers won the chess tournament.", "The competition was decided by players younger than eighteen."),
    ("The warranty covers the battery.", "Within two years, a defective accumulator is replaced at no cost."),
    ("Patients with fever should rest.", "Bed rest is advised while the temperature is raised."),
    ("Heavy rain flooded the cellar.", "After the storm, water stood knee-deep below the house."),
    (
        "Where can I park near the stadium?",
        "On match days, visitors leave their cars at the fairground and take the shuttle.",
    ),
    ("The committee rejected the proposal.", "By seven votes to four, the motion was not carried."),
    ("Solar panels need little maintenance.", "Photovoltaic modules work for decades, and are cleaned by the rain."),
    ("The novel is set in Norway.", "Its story takes place in a fishing village by a fjord."),
    ("How do bees find their way home?", "Honeybees orient themselves by the sun and by landmarks."),
    ("The landlord must fix the heating.", "Broken radiators are the responsibility of the owner of a flat."),
    ("Transfer money abroad", "International payments need the IBAN and the BIC of the recipient."),
    ("The dose for children is half a tablet.", "Minors take 50 mg, adults twice as much."),
    ("Wie wird das Wetter morgen?", "Am Dienstag scheint die Sonne bei höchstens zwölf Grad."),
    ("Der Vertrag endet im Juni.", "Die Laufzeit der Vereinbarung geht bis zur Mitte des Jahres."),
    ("Quels documents faut-il pour un passeport ?", "La demande exige une photo et un justificatif de domicile."),
    ("Le vin est produit en Bourgogne.", "Ce cru vient d'un vignoble de l'est de la France."),
    ("¿Dónde está la farmacia más cercana?", "Hay una botica abierta en la plaza, al lado del banco."),
    ("Il treno è in ritardo.", "Il convoglio arriverà con venti minuti di attesa."),
    ("会議は何時に始まりますか。", "打ち合わせは午後三時からです。"),
    ("Где можно купить билеты?", "Касса театра открыта с десяти утра."),
)
"""Short questions or statements, each with a text that answers it or means nearly the same."""

QUALITY_TEXTS = (*SAMPLE_TEXTS, *(text for pair in PAIRS for text in pair))
"""Texts that show what the rounding of a precision costs, and whether each keeps its nearest neighbour among them."""
