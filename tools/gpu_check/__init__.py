"""One check of all that needs a GPU, with a report that is written as it goes. Nothing here imports torch but the
programs that stages run in processes of their own: what ends one of those ends no other stage."""
