// The words of the short code, 11 bits each. Their order is part of the protocol: both sides must read out the same words.
// They were chosen to be told apart over a bad line: no two differ by one letter only, none sounds like another.

/** 2048 words in alphabetical order. */
export const words = `
absorb achieve acrobat action active actor actual adjust admiral admire admit adore agent agile agree airplane
airport alarm album alert algebra allow almanac almond alone alpaca alphabet alpine always amazing amber amuse
anchor ancient ankle announce annual answer antelope antenna anthem antique anvil applause apple apricot apron
aquarium arcade archer archive arctic arena argue argument arm armchair aroma arrange arrive arrow artist ash asleep
aspect aspen asphalt assist athlete atlas atomic attend attic aurora author autumn avenue avocado avoid aware away
awful awning axis axle baboon baby backpack backyard bacon bacteria badger bagel baker balance balcony ballad
balloon ballroom bamboo banana bandage banjo banner barber bargain barge bark barley barracks barrel baseball
basement basic bat bathroom bathtub battery bean beauty beaver bed bedroom beehive beetle beige believe bellhop belt
bench benefit bicycle binary birch bird birthday biscuit bison blackout blanket blender blimp blinds blink blizzard
bloom blossom bluebird blunt bobcat bobsled boil bold bonfire bonus bookcase borough borrow bother bounce bounty
bouquet boxer boxing bracelet brain bramble branch brand brave breathe breeze bride brief brigade bright bring brisk
broad broccoli broken bronco bronze brook broth brownie browser bubble bucket buckle buckskin budget buffalo bugle
builder building bulldog bump bungalow bunny burger burrito bush butcher butter button buzzer bypass cabbage cabin
cable cactus cadence cadet cake calendar camel camera campaign camper campus canary cancel candle candy canoe canopy
canteen canyon captain caramel caravan cardinal career careful cargo carnival carpet carport carriage carton carve
cascade cashew cashmere casino castle casual catalog catfish cauldron cavern celery celsius century ceramic certain
chair chalet chalk champion chance chapel chapter charcoal chariot charity charm cheap checkers cheek cheerful
cheese cheetah chef chemical cherry chess chestnut chevron chicken child chimney chimp chin chipmunk chisel chowder
chrome chuckle cicada cider cinema cinnamon cipher circle circuit circus citizen citrus city civic clam clarinet
class clean clerk cliff climate climb clinic clipper cloak closet cloud clover clown club cluster coach cobalt
cobbler cobra cobweb coconut code coffee collar collect college colossal column comb comedy comet comfort command
common compare complete concert concrete confetti connect consider contest convince convoy cookbook copper corn
correct corridor cosmic cosmos cottage cougar cough count country cousin cowbell cowboy coyote cozy crab cracker
cradle crane crater crawl crayon cream create crescent cricket crimson crisp crocus crooked crossbow crouton crow
crumb crumpet crush crystal cube cubic cucumber cup cupboard curious curl curry cushion custard custom cutlery cyan
cycle cylinder cypress dahlia daisy dancer date daughter dawn deacon debate decade decent decimal decision decoy
degree deliver delta denim density dentist depot deputy derby describe design desk detail develop devotion diagram
dial dialog diamond diary diet digital dignity dim diner dingo dinosaur direct disco discount discover distance
distant district divide doctor dog dolphin domain domino donate donkey donut door doorbell double dove dragon drama
drawer dress drift drill drink drip drive drowsy drum dry duchess duck dugout dumpling dune dungeon dust dustpan
dwell dynamo eager eagle early earmuff earring earth eastern easy echo eclipse economy editor educate eel effort
elastic elbow elder election elegant elephant elevator eleven elixir elk embark embassy emblem embrace emerald
emerge emotion emperor employ empty emu enable encore endless energy engineer enjoy ensemble enter envelope episode
equal equator eraser escape espresso essay estate eternal evening event evidence evolve exact exam examine example
exceed excite exit exotic expand expert explain explore express extra fabric face factory faith falafel falcon false
family famous fanfare fantasy farewell farmer fashion fasten father faucet favor feast feline fence fern ferret
festival fetch fiber fiction fiddler field fierce fiesta fig fighter figure film filter finale finance finch fire
firefly first fish fixed flag flame flamenco flamingo flannel flask fleece flexible flint flip float flood floral
fluffy flute focus foggy folklore fond fondue foot forehead foreign forest forget forgive fork formal formula
fortune fossil fox foxglove fraction fragile freckle freedom freezer freight frequent fresco fresh friend fringe
frisbee frog frost frozen fudge fuel fun furnace further fusion future gadget gain galaxy gallery gallop game garage
garden gardenia gargoyle garland garlic garment gazebo gazelle gazette gearbox gecko general generous genius genome
gentle genuine gerbil geyser giant gibbon gift giggle ginger giraffe gizmo glacial glacier glade glance glider
glitter globe glory glossy glow glue goat goblet golden goldfish gondola gong good goose gopher gothic governor
graffiti grammar granite granola grape graphic grass grateful gravel gravity gravy green grind grocer group growth
grumpy guard guava guess guide guitar gulf gum gumdrop habit habitat haiku hallway hamlet hammer hammock hamster
handbag happen harbor hardy harmony harness harp harvest hatbox hatchet haven hawk hazel head headline health
heather heavy hedge hedgehog heirloom helium hello helmet helpful hemlock heritage heron herring hesitate hexagon
hibiscus hidden highway hiker hill hilltop hinge hip hippo history holiday hollow hologram home honest honey honor
hoodie hook horizon hornet hospital hostel hound hover hubcap huge human humble humid hundred hungry hunter husky
hut hyacinth hydrogen ibex iceberg icicle icon idea igloo ignite iguana image imagine immense impact improve include
income index indigo indoor industry inform inhale ink inkwell inner input insight inspect inspire install instant
instead instinct intense interest inventor invest invite iris irony island isotope ivory ivy jackal jacket jackpot
jaguar jasmine jasper javelin jaw jazz jeep jelly jersey jester jet jewel jigsaw jockey join joker journal journey
joy jug juice jukebox jumbo jungle juniper justice kale karaoke karate karma kayak keen kennel ketchup kettle
keyboard khaki kimono king kingdom kiosk kitchen kitten kiwi knife knuckle lab lacquer lacrosse ladle ladybug lagoon
lamp landmark language lantern laptop larder lasagna laser lasso last latitude laurel lava lavender lawyer leader
leaf league learn leash ledger left leg legacy legend legume leisure lemon lemonade lend length lentil leopard
letter lettuce lever liberty library licorice lid light likely lilac lily lime limerick limit linear linen lion
liquid listen little lizard lobby lobster locker lodge logic lorry lotus lovely loyalty lucid lucky luggage lullaby
lunch lunchbox lyric macaroni macaw machine magenta magic magma magnet magnolia magpie mahogany major majority
mallet malt mammal manage mandolin mango mantis maple marathon marble margin marigold marinade marine market marmot
marsh mascot mask mason matchbox matrix mattress maxim maximum mayo meadow meaning measure meatball medic medium
mellow melody melon member memory mentor menu merchant mercury mercy merit mermaid message meteor method metro
midnight midway mighty milk miller mimic mineral minivan minnow mint minute miracle mirror mischief mix mixture
mobile modern modest module moist mole molecule moment mongoose monsoon monthly monument moon moped moral mosquito
moss motel moth motive mountain mouse movie mow mud muddy muffin mulberry multiple museum mushroom music musician
mustang mystery napkin narwhal nation nature nebula neck necklace nectar neighbor neon nephew nerve nervous neuron
neutral newt nickel nickname nimble nine ninja nitrogen noble nod noisy nomad noodle north notebook notepad notice
nougat novel november nucleus number nurse nursery nutmeg nutty oasis oatmeal obey object oblong observe obtain
occur ocean octagon octave october octopus odd odor offer officer olive olympic omega omelet onion onward onyx opera
operate opinion opossum optics optimal option oracle orange orbit orca orchard orchid order oregano organic origami
origin ornate ostrich otter outcome outlaw outlook outpost output oval overalls overpass owl oxen oxide oxygen
oyster pack package paddle padlock page pagoda painter pajamas palm pancake panda panel panther papaya paprika
parade paradise paragon parallel parasol parcel parent parlor parrot parsley parsnip partial particle partner party
passion passport pasta pastel pastor pastry pasture patch patient patio patron pattern pavement pavilion payment
payroll peach peacock peanut pebble pecan pelican pen pencil pendant pendulum penguin people pepper percent perfect
perform perfume period permit persuade pheasant phone photo physics piccolo pickle picnic pigeon pigment pilgrim
pilot pinball pinecone pinwheel pirate pitcher pixel pizza placard plaid planet plank plasma plaster plateau
platform platypus player playful plaza pleasure plenty pliers pluck plug plumber plunge plural plush plywood pocket
podium poet poetry point polar polaroid police polish polka polygon poncho pony popcorn popsicle popular porch
portable porter portion portrait possible postcard postman potato poultry powder practice prairie preface prefer
premise premium prepare preserve pressure pretend pretty pretzel prevent preview primary prime princess priority
prism privacy private problem proceed process product profile progress prompt proof proper proposal prose protein
protest proud proverb provide province public publish pudding pull pulley pulse puma pumpkin pupil puppet purple
purpose puzzle pyramid python quaint quality quantity quantum quarry quarter queen quest quick quiet quill quince
quirky quiz quota raccoon radical radio radish radius raft rag rainbow raisin rally ramen random ranger rank rapids
rare rattle ravioli razor react realize recall receipt receive recipe record recover recycle reduce redwood reef
referee reflect reform refund refuse regal regard region regular reindeer rejoice relaxed relish remedy remember
remind remote repair repeat replace replica reply request rescue research resist resolve resort respect respond
restore result retire retreat return reunion revenue revise rhino rhubarb rhythm rib rice rickshaw riddle ridge
rigid risotto ritual rival river roar robe robin robot robust rock romance rookie room rooster rosemary rotate
rotunda roulette routine royal rucksack rudder rugby ruin ruler rumba rumor runner runway rural rustic rusty safe
saffron saga sailor salad salmon salsa salty samba sample sand sandwich sapling sapphire sardine satchel saturday
saturn saucer sausage savanna savvy sawdust scale scallop scarf scarlet scholar school science scissors scoop
scooter score scout scrape scratch screen script scroll scrub sculptor seal search seashell season seaweed secret
sector secure seed seesaw select senate senator senior sequel sequoia serenade serene sergeant series server service
seven several shadow shallow shamrock shape shark shawl sheep shelf shelter shepherd sherbet sheriff shield shiny
shirt shiver shoelace shoulder shovel shower shrimp shrine shrug shuttle sidecar sigh sigma signal silence silent
silicon silo silver sincere single sister sitcom skate sketch skillet skipper sky skyline slalom slide slogan slope
sloth smart smile smock smooth snail snake snap snapshot snatch sneak sneeze snorkel snow snowball snowman snug soak
soccer social society soda soft solstice solve solvent somber sonnet souffle soup south spa spare sparrow spatula
special species spectrum speech spend sphere spice spider spill spinach spiral spirit splash splendid split sponge
spoon sport spray spread spring sprout spruce squash squeeze squid squire squirrel stable stadium stage stallion
standard stapler star starfish static station statue steeple stencil stereo stew stick stiff stingray stomach stone
stool stop stork stormy strange strap strategy stream street strength stress stretch strict strike stroller strong
student studio stumble sturdy subject subtle suburb subway success sudden sugar suggest suit suitcase summer summit
sundial sunrise sunset superb supper supply support suppose supreme surfer surprise surround survey survive sushi
suspect swamp swan sweater swift swim swimmer swing switch sycamore symmetry symphony syrup system tablet tackle
taco tadpole talent tall tape tapestry target tart tassel taste taxi teacher teacup teapot teardrop temper tempest
tempo tenant tender tennis tension tent tepid term terrace terrier texture thank theater theme theory therapy
thermal thermos thesis thick thimble third thirsty thistle thorn thorough thought thousand thread thrill throat
throw thumb thunder thursday tiara ticket tidy tie tiger tilt timber tinsel tissue title toast together toggle
tomato tomorrow tongue tonight tooth topaz topic tornado torso tortilla total totem toucan touch tourist tower town
trace trader traffic trail trainer tram transfer treasure treaty tree treetop trellis tremble trend triangle tribute
tricycle trident trinket triple tripod triumph trivia trolley trombone trophy tropical tropics trousers trout trowel
truck truffle truth tub tugboat tulip tumbler tuna tundra tunnel turban turbine turbo turnip turret turtle tutor
tuxedo tweezers twelve twenty twice twig twilight twirl twist typhoon typical ukulele ultra umbrella uncle under
unfold unicorn unicycle uniform unique unity unlock unpack unveil update uphold upright upset uptown urgent useful
usher usual utensil vacation vacuum valid valley valve van vanguard vanilla vanish variety vase vault velocity
velvet venture venus veranda verb verdict verse version vessel veteran victor view viking village vinegar vineyard
vintage violet violin virtue visible vision visitor vital vitamin vivid vocal volcano voltage volume voter voyage
vulture waffle wagon walkway wallaby walnut walrus want wardrobe warmth warning wary wasabi washer wasp water
wealthy weasel wedding weekday weekend welcome welfare west wetland wharf whisker white wick wide wildcat willow
wind windmill window windpipe winter wisdom wishbone withdraw witness wobble wolf woman wombat wonder wooden
woodland woodwind wool worker workshop worm woven wrench wrestle wrist writer xenon yacht yak yard year yearbook
yell yes yodel yogurt young zany zebra zenith zeppelin zero zesty zigzag zinc zodiac zoo
`
  .trim()
  .split(/\s+/);
