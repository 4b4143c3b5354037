"""Partners: applications with an API key, which read the products of every enterprise."""

from locust import between, task

from loadtest.load_user import PRODUCTS, SETTINGS, LoadUser

_BATCH_SIZE = 30


class PartnerUser(LoadUser):
    """An application that traces products."""

    weight = 3
    wait_time = between(0.02, 0.08)

    def on_start(self) -> None:
        """Take the key of the application, if there is one."""
        super().on_start()
        self.key = SETTINGS.key

    @task(20)
    def read(self) -> None:
        """One product of any enterprise."""
        products = self.chooser.choice(PRODUCTS)
        number = products.popular(self.chooser)
        self.resolve(self.question(products, number), "partner: one product")

    @task(2)
    def batch(self) -> None:
        """Products of several enterprises in one request."""
        some = self.chooser.choices(PRODUCTS, k=_BATCH_SIZE)
        numbers = (products.popular(self.chooser) for products in some)
        pairs = zip(some, numbers, strict=True)
        questions = [self.question(products, number) for products, number in pairs]
        self.resolve_many(questions, "partner: batch")

    @task(1)
    def misread(self) -> None:
        """A torn label: a number that nobody registered."""
        products = self.chooser.choice(PRODUCTS)
        number = products.count + self.chooser.randrange(products.count)
        self.resolve_unknown(products.identifier(number), "partner: unknown product")
